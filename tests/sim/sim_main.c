/* SPDX-License-Identifier: Apache-2.0 */
/* sim_main.c - runs episodes until so many plans are made, and says how to see a failure again.
 *
 *   sim [--seed N] [--steps M] [--verbose] [--all] [--defect NAME]
 *
 * Episode k has seed N + k, and nothing else decides what happens in it; so a failure comes again with the seed of its
 * episode and one step.  --all demands that everything countable has happened.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "tests/sim/sim_defects.h"

#define EPISODE_CPU_S                                                                              \
    120 /* a scheduler that does not come back; an episode takes well below a second */

static sim g;

/* ---- failures ---- */

static void print_where(const sim *m)
{
    printf("sim: episode of seed %" PRIu64 ", plan %lld, virtual time %lld us\n", m->seed,
           (long long)m->n_plans, (long long)m->now);
    printf("sim: see it again with: sim --seed %" PRIu64 " --steps 1 --verbose\n", m->seed);
    (void)fflush(stdout);
}

void sim_fail(const sim *m, const char *fmt, ...)
{
    va_list ap;

    printf("sim: FAILED: ");
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    for (int i = 0; i < m->n_open; i++)
        for (int k = 0; k < m->open[i]->n; k++) {
            const sim_choice *c = &m->open[i]->choices[k];

            if (c->seq.state != RT_SEQ_RUNNING && c->seq.n_preempted == 0)
                continue;
            printf(
                "  request %lld.%d: state %d slot %d total %d computed %d blocks %d new_max %d\n",
                (long long)m->open[i]->id, k, (int)c->seq.state, c->seq.slot, c->seq.n_total,
                c->seq.n_computed, c->seq.n_blocks, c->seq.n_new_max);
        }
    print_where(m);
    _exit(1);
}

void sim_note(const sim *m, const char *fmt, ...)
{
    va_list ap;

    if (!m->verbose)
        return;
    printf("%10lld ", (long long)m->now);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

/* An assertion of the code under test, a crash, or a loop without end.  What printf() holds back may be lost. */
static void on_signal(int sig)
{
    printf("sim: FAILED: %s\n", sig == SIGPROF   ? "a plan that does not end"
                                : sig == SIGABRT ? "an assertion"
                                                 : "a crash");
    print_where(&g);
    _exit(1);
}

/* Of the sanitizers, where the program is built with one. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void on_sanitizer(void)
{
    print_where(&g);
}

static void watch(void)
{
    (void)signal(SIGABRT, on_signal);
    (void)signal(SIGPROF, on_signal);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(on_sanitizer);
    else
        (void)signal(SIGSEGV, on_signal);
}

/* ---- episodes ---- */

static void run_episode(uint64_t seed)
{
    struct itimerval limit = {.it_value = {.tv_sec = EPISODE_CPU_S}};
    sim_totals totals = g.totals;
    bool verbose = g.verbose;

    memset(&g, 0, sizeof g);
    g.seed = seed;
    g.rng = sim_mix(seed + UINT64_C(0x9e3779b97f4a7c15));
    g.totals = totals;
    g.verbose = verbose;
    (void)setitimer(ITIMER_PROF, &limit, NULL);
    sim_run_episode(&g);
}

static int report(uint64_t first, uint64_t n_episodes, bool all)
{
    int never = 0;

    printf("sim: %" PRIu64 " episodes, seeds %" PRIu64 " to %" PRIu64 "\n", n_episodes, first,
           first + n_episodes - 1);
#define X(name, text)                                                                              \
    printf("%12lld %s\n", (long long)g.totals.name, text);                                         \
    never += g.totals.name == 0;
    SIM_COUNTERS(X)
#undef X
    if (all && never > 0) {
        printf("sim: FAILED: %d of these never happened\n", never);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, n = 0;
    int64_t steps = 1000000;
    bool all = false;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--verbose") == 0) {
            g.verbose = true;
        } else if (strcmp(argv[i], "--all") == 0) {
            all = true;
        } else if (strcmp(argv[i], "--seed") == 0 && value != NULL) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--steps") == 0 && value != NULL) {
            steps = strtoll(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--defect") == 0 && value != NULL && sim_plant_defect(value)) {
            i++;
        } else {
            (void)fprintf(stderr,
                          "sim [--seed N] [--steps M] [--verbose] [--all] [--defect NAME]; "
                          "not understood: %s\n",
                          argv[i]);
            return 2;
        }
    }
    tp_log_set_level(TP_LOG_ERROR);
    if (tp_hash_init() != TP_OK)
        return 2;
    watch();
    while (g.totals.plans < steps)
        run_episode(seed + n++);
    return report(seed, n, all);
}
