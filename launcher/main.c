/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - which of tpserve's commands was asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/boot.h"
#include "launcher/model_path.h"
#include "launcher/options.h"
#include "launcher/ranks.h"
#include "launcher/serve.h"

#define SPEAK_MS 2000 /* that rank 0 has to say what is wrong, before the others leave */

static void print_version(void)
{
    puts("tpserve " TPSERVE_VERSION);
}

/* Texts that were asked for instead of a command; true when one was printed. */
static bool print_texts(const launch_parser *p)
{
    const launch_options *o = &p->opt;

    if (o->help)
        launch_print_help(stdout, o->command_is_given && o->command != LAUNCH_VERSION
                                      ? LAUNCH_FOR(o->command)
                                      : LAUNCH_FOR_ALL);
    else if (o->generate_man)
        launch_print_man(stdout);
    else if (o->generate_completion != NULL)
        launch_print_completion(stdout);
    else if (o->print_config)
        launch_print_config(stdout, p);
    else if (o->command == LAUNCH_VERSION)
        print_version();
    else
        return false;
    return true;
}

/* What a rank sees by itself: said before MPI, or ranks of our own, are started. */
static tp_status check_start(const launch_options *o)
{
    bool own_engine = o->engine || o->host_is_bare;
    bool needs_model = o->command == LAUNCH_SERVE || o->command == LAUNCH_INSPECT ||
                       o->command == LAUNCH_PLAN || (o->command == LAUNCH_BENCH && own_engine);
    int n_ranks = comm_env_size();

    if (needs_model)
        TP_TRY(launch_need_model(o));
    if (o->command == LAUNCH_SERVE && o->tensor_parallel_size > 0 && n_ranks > 0)
        return launch_check_size(o, n_ranks);
    return TP_OK;
}

/* These have no ranks: under mpirun one process does what was asked for, the others nothing. */
static bool needs_no_ranks(const launch_options *o)
{
    return o->command == LAUNCH_INSPECT || o->command == LAUNCH_PLAN ||
           (o->command == LAUNCH_BENCH && !o->engine && !o->host_is_bare && !o->comm_is_given);
}

static int run_command(const launch_options *o, int argc, char **argv)
{
    if (needs_no_ranks(o) && launch_env_rank() > 0)
        return 0;
    if (o->command == LAUNCH_INSPECT)
        return launch_inspect(o);
    if (o->command == LAUNCH_PLAN)
        return launch_plan_command(o);
    if (needs_no_ranks(o))
        return launch_bench(o); /* of another process */
    if (o->tensor_parallel_size > 1 && !launch_under_launcher())
        return launch_own_ranks(o, argc, argv);
    if (o->command == LAUNCH_DOCTOR)
        return launch_doctor(o);
    if (o->command == LAUNCH_BENCH)
        return launch_bench(o);
    return launch_serve(o);
}

/* The text of the error that is kept, once on each host; the exit code. */
static int refuse(void)
{
    int rank = launch_env_rank();
    char host[256] = "";

    if (rank <= 0) {
        fprintf(stderr, "tpserve: %s\n", tp_last_error());
        return LAUNCH_EXIT_USAGE;
    }
    if (launch_env_speaks()) { /* its environment or files may be others than rank 0's */
        (void)gethostname(host, sizeof host - 1);
        fprintf(stderr, "tpserve: rank %d on %s: %s\n", rank, host, tp_last_error());
    }
    /* At the first exit mpirun kills the others, be it before they have spoken. */
    tp_sleep_us(SPEAK_MS * 1000);
    return LAUNCH_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    const char *faults = getenv("TPSERVE_FAULT");
    tp_log_level level;
    launch_parser p;
    int code = 0;

    tp_mem_init();
    if (launch_env_rank() > 0)
        tp_log_set_level(TP_LOG_WARN);
    if (launch_parse(&p, argc, argv) != TP_OK ||
        (faults != NULL && tp_fault_arm_list(faults) != TP_OK)) {
        code = refuse();
        launch_parser_release(&p);
        return code;
    }
    if (tp_log_parse_level(p.opt.log_level, &level))
        tp_log_set_level(level);
    tp_log_set_json(p.opt.log_json);
    if (!print_texts(&p))
        code = check_start(&p.opt) == TP_OK ? run_command(&p.opt, argc, argv) : refuse();
    launch_parser_release(&p);
    return code;
}
