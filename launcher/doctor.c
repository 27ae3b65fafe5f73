/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.c - `tpserve doctor`: every rank looks around, rank 0 measures, judges and speaks.
 *
 * Exit code 0: nothing serious is wrong; 1: something is, or the check itself could not be made.
 */
#include "launcher/doctor.h"

#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/keys.h"
#include "launcher/model_path.h"
#include "launcher/ranks.h"
#include "launcher/serve.h"

#define SWEEP_SECONDS 0.01
#define KEYS_MAX      ((size_t)1 << 20)

static void keep_row(void *arg, const comm_bench_row *row)
{
    launch_measured *m = arg;

    if (m->n_sweep < LAUNCH_SWEEP_MAX)
        m->sweep[m->n_sweep++] = *row;
}

static void check_keys(launch_measured *m, const launch_options *opt)
{
    launch_list keys;
    tp_arena arena;

    tp_arena_init(&arena, KEYS_MAX);
    if (launch_settle_keys(&keys, &arena, opt) != TP_OK)
        (void)snprintf(m->key_error, sizeof m->key_error, "%s", tp_last_error());
    for (int i = opt->api_key.n; i < keys.n; i++)
        tp_wipe((char *)(uintptr_t)keys.items[i], strlen(keys.items[i]));
    tp_arena_release(&arena);
}

/* What only rank 0 does; the others wait in the sweep. */
static void measure(launch_measured *m, const launch_options *opt, const launch_checkup *mine)
{
    char dir[LAUNCH_PATH_MAX];

    m->memory_gbps = launch_memory_gbps(mine->usable);
    launch_check_port(m, opt->host, (int)opt->port);
    check_keys(m, opt);
    if (opt->model == NULL)
        return;
    if (launch_find_model(dir, opt) == TP_OK)
        launch_measure_disk(m, dir);
    else
        (void)snprintf(m->model_error, sizeof m->model_error,
                       "%.*s (tpserve inspect lists the places)",
                       (int)strcspn(tp_last_error(), ";\n"), tp_last_error());
}

static void sweep(launch_measured *m, const launch_options *opt, const comm_world *world)
{
    comm_bench_options o = {.seconds = SWEEP_SECONDS};

    if (world->size > 1 && launch_sweep(opt, world, &o, keep_row, m) != TP_OK)
        (void)snprintf(m->sweep_error, sizeof m->sweep_error, "%s", tp_last_error());
}

static bool serious(const launch_findings *f)
{
    for (int i = 0; i < f->n; i++)
        if (f->items[i].serious)
            return true;
    return false;
}

static bool speak(const launch_options *opt, const launch_checkup *all, int n,
                  const launch_measured *m, const launch_findings *f)
{
    launch_json j;

    if (!opt->json) {
        launch_print_checkup(stdout, all, n, m, f);
        return true;
    }
    launch_json_init(&j);
    launch_put_checkup(&j, all, n, m, f);
    return launch_json_print(&j, stdout);
}

int launch_doctor(const launch_options *opt)
{
    launch_measured *m = tp_calloc(1, sizeof *m);
    launch_findings *f = tp_calloc(1, sizeof *f);
    launch_checkup *all = NULL, *mine = tp_calloc(1, sizeof *mine);
    comm_world world;
    bool well = false;

    if (m == NULL || f == NULL || mine == NULL || comm_init(&world) != TP_OK)
        return 1;
    tp_log_set_rank(world.rank, world.size);
    launch_check_host(mine, &world);
    all = tp_calloc((size_t)world.size, sizeof *all);
    if (all != NULL && launch_gather(all, mine, sizeof *mine, &world) == TP_OK) {
        if (world.rank == 0)
            measure(m, opt, mine);
        sweep(m, opt, &world);
        well = true;
        if (world.rank == 0) {
            launch_judge(f, all, world.size, m, opt->device);
            well = speak(opt, all, world.size, m, f) && !serious(f);
        }
    }
    comm_finalize();
    tp_free(all);
    tp_free(mine);
    tp_free(f);
    tp_free(m);
    return well ? 0 : 1;
}
