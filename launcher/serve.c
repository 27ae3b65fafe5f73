/* SPDX-License-Identifier: Apache-2.0 */
/* serve.c - one rank: group, cores, backend, engine; on rank 0 the HTTP server as well.
 *
 * The main thread is the engine thread (the only one that calls MPI).  Signals are blocked everywhere and taken by one
 * thread, which turns them into a drain.  A SIGTERM that comes from our own mpirun is its hard stop: there is about a
 * second left, so open streams are told at once.  Ranks other than 0 ignore the drain signals: they end with the plan.
 * When a rank was lost, mpirun sends SIGTERM a second later, too: by then everybody has been told why.
 */
#include "launcher/serve.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/server.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "comm/comm.h"
#include "comm/life.h"
#include "kernels/kern.h"
#include "launcher/agree.h"
#include "launcher/bind.h"
#include "launcher/gpu_bind.h"
#include "launcher/keys.h"
#include "launcher/model_path.h"
#include "launcher/ranks.h"
#include "runtime/engine.h"

#define FLUSH_MS   1000 /* for the last bytes to clients after a failure */
#define LINGER_MS  300  /* and for those who ask /health what has happened */
#define VERDICT_MS 300  /* for the lifeline to see what a peer saw first */

typedef struct signal_watch {
    pthread_mutex_t lock;
    rt_engine *engine; /* under lock; NULL while loading */
    int64_t timeout_ms;
    bool leader;       /* under lock; until MPI is up, what the environment says */
    bool under_mpirun; /* asked before MPI starts: it sets the variable for a lone process, too */
    bool stop_early;   /* under lock: a signal came before the engine was there */
} signal_watch;

static signal_watch g_watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void drain_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
}

static void on_signal(const siginfo_t *info, int count)
{
    bool hard = info->si_signo == SIGTERM && info->si_pid == getppid() && g_watch.under_mpirun;
    int64_t timeout_ms = hard || count > 1 ? 0 : g_watch.timeout_ms;

    if (hard)
        comm_life_hurry(); /* does mpirun end the job because it lost a host? */
    pthread_mutex_lock(&g_watch.lock);
    if (!g_watch.leader) {
        tp_debug("launcher", "signal %d left to rank 0", info->si_signo);
    } else if (comm_life_lost(NULL)) {
        tp_debug("launcher", "signal %d after the loss of a rank", info->si_signo);
    } else if (g_watch.engine != NULL) {
        tp_info("launcher", "signal %d: draining, running requests have %lld s", info->si_signo,
                (long long)timeout_ms / 1000);
        rt_engine_drain(g_watch.engine, timeout_ms);
    } else {
        tp_info("launcher", "signal %d while no engine runs: ending", info->si_signo);
        g_watch.stop_early = true;
    }
    pthread_mutex_unlock(&g_watch.lock);
}

static void *watch_signals(void *unused)
{
    sigset_t set;
    int count = 0;

    (void)unused;
    drain_signals(&set);
    for (;;) {
        siginfo_t info;

        if (sigwaitinfo(&set, &info) > 0)
            on_signal(&info, ++count);
    }
    return NULL;
}

static tp_status start_watch(const launch_options *opt, bool leader)
{
    pthread_t thread;
    sigset_t set;

    g_watch.timeout_ms = opt->shutdown_timeout * 1000;
    g_watch.leader = leader;
    g_watch.under_mpirun = getenv("OMPI_COMM_WORLD_RANK") != NULL;
    drain_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    if (pthread_create(&thread, NULL, watch_signals, NULL) != 0)
        return TP_FAIL(TP_ERR_NOMEM, "cannot start the signal thread");
    pthread_detach(thread);
    return TP_OK;
}

static void set_leader(bool leader)
{
    pthread_mutex_lock(&g_watch.lock);
    g_watch.leader = leader;
    pthread_mutex_unlock(&g_watch.lock);
}

/* Tells the watch about the engine; a drain that came too early takes effect now. */
static void set_watched(rt_engine *e)
{
    pthread_mutex_lock(&g_watch.lock);
    g_watch.engine = e;
    if (e != NULL && g_watch.stop_early)
        rt_engine_drain(e, 0);
    pthread_mutex_unlock(&g_watch.lock);
}

static tp_status start_api(api_server **out, const launch_options *opt, tp_arena *arena)
{
    launch_list keys;
    const char *const *names = opt->served_model_name.items;
    int n_names = opt->served_model_name.n;
    tp_status st = launch_settle_keys(&keys, arena, opt);

    if (st != TP_OK)
        return TP_FAIL(st, "%s", tp_last_error());
    if (n_names == 0) {
        names = &opt->model;
        n_names = 1;
    }
    st = api_server_create(
        out, &(api_options){.host = opt->host,
                            .port = (int)opt->port,
                            .api_keys = keys.items,
                            .n_api_keys = keys.n,
                            .model_names = names,
                            .n_model_names = n_names,
                            .model_root = opt->model,
                            .allowed_origins = opt->allowed_origins.items,
                            .n_allowed_origins = opt->allowed_origins.n,
                            .version = TPSERVE_VERSION,
                            .max_body_bytes = opt->max_body,
                            .max_connections = (int)opt->max_connections,
                            .max_output_tokens = opt->max_output_tokens,
                            .max_prompts_per_request = (int)opt->max_prompts_per_request,
                            .max_seqs_per_request = (int)opt->max_seqs_per_request,
                            .log_requests = opt->enable_log_requests});
    for (int i = 0; i < keys.n; i++)
        tp_wipe((char *)(uintptr_t)keys.items[i], strlen(keys.items[i]));
    return st;
}

rt_engine_options launch_engine_options(const launch_options *opt, const char *model_dir)
{
    return (rt_engine_options){.model_dir = model_dir,
                               .dtype = opt->dtype,
                               .max_model_len = opt->max_model_len,
                               .max_num_seqs = (int)opt->max_num_seqs,
                               .max_num_batched_tokens = (int)opt->max_num_batched_tokens,
                               .block_tokens = (int)opt->block_size,
                               .kv_cache_memory_bytes = opt->kv_cache_memory_bytes,
                               .memory_share = opt->gpu_memory_utilization,
                               .watermark = opt->watermark,
                               .max_num_queued_reqs = (int)opt->max_num_queued_reqs,
                               .max_num_queued_tokens = opt->max_num_queued_tokens,
                               .no_prefix_caching = !opt->enable_prefix_caching,
                               .speculation = opt->speculation,
                               .sync_scheduling = !opt->async_scheduling,
                               .enforce_eager = opt->enforce_eager,
                               .capture_sizes =
                                   opt->n_capture_sizes > 0 ? opt->capture_sizes : NULL,
                               .n_capture_sizes = opt->n_capture_sizes,
                               .comm = opt->comm,
                               .step_timeout_ms = opt->step_timeout * 1000,
                               .dummy_weights = strcmp(opt->load_format, "dummy") == 0,
                               .eager_weights = strcmp(opt->load_strategy, "eager") == 0,
                               .progress = isatty(STDERR_FILENO) == 1};
}

/* After a failure that the ranks have not agreed on: ends the job.  A start that failed on all alike ends by itself. */
static void leave(rt_engine *engine, tp_status st)
{
    const char *why = tp_last_error();

    comm_life_linger(st == TP_ERR_COMM ? VERDICT_MS : 0, LINGER_MS + FLUSH_MS);
    if (engine == NULL && !comm_life_lost(NULL))
        return;
    (void)comm_life_lost(&why);
    comm_abort(engine != NULL ? rt_engine_group(engine) : NULL, COMM_EXIT_LOST, why);
}

/* What rank 0 does before the ranks meet in rt_engine_create: finds the model, and listens. */
static tp_status start_leader(char dir[LAUNCH_PATH_MAX], api_server **api,
                              const launch_options *opt, tp_arena *arena)
{
    tp_status st = launch_find_model(dir, opt);

    if (st != TP_OK)
        return TP_FAIL(st, "%s", tp_last_error());
    return start_api(api, opt, arena);
}

static tp_status serve_requests(rt_engine *engine, api_server *api, const launch_options *opt)
{
    tp_status st;

    set_watched(engine);
    if (api != NULL) {
        api_server_set_engine(api, engine);
        tp_info("launcher", "ready: http://%s:%d/v1", opt->host, api_server_port(api));
    }
    st = rt_engine_run(engine);
    set_watched(NULL);
    return st;
}

/* Tells clients how it ended.  engine: NULL when it never began; st: its end. */
static void end_api(api_server *api, const rt_engine *engine, tp_status st)
{
    if (st != TP_OK) {
        bool lost = engine != NULL && rt_engine_get_state(engine) == RT_ENGINE_RANK_LOST;

        api_server_set_failed(api, lost ? "rank_lost" : "engine_dead");
        if (engine != NULL)
            tp_sleep_us(LINGER_MS * 1000);
    }
    api_server_stop(api, st == TP_OK ? 5 * FLUSH_MS : FLUSH_MS);
    api_server_destroy(api);
}

/* Serves until the end; the engine and the server live inside. */
static tp_status run(const launch_options *opt, const comm_world *world, kern_backend *be,
                     const launch_device *device, tp_arena *arena)
{
    char dir[LAUNCH_PATH_MAX] = "";
    rt_engine_options eo = launch_engine_options(opt, dir);
    api_server *api = NULL;
    rt_engine *engine = NULL;
    tp_status st = TP_OK;

    if (world->rank == 0 && be != NULL)
        st = start_leader(dir, &api, opt, arena);
    /* the ranks agree inside: a failure of rank 0 above is handed in as a missing model */
    eo.model_dir = st == TP_OK ? dir : NULL;
    eo.reducers = device->reducers;
    eo.comm_table = opt->comm_table;
    eo.device_name = device->name[0] != '\0' ? device->name : device->kind;
    if (be == NULL)
        eo.comm = "auto"; /* what was asked for may need the device that is missing */
    st = rt_engine_create(&engine, &eo, be, world);
    if (st == TP_OK)
        st = serve_requests(engine, api, opt);
    if (api != NULL)
        end_api(api, engine, st);
    if (st != TP_OK && world->size > 1)
        leave(engine, st);
    rt_engine_destroy(engine);
    return st;
}

tp_status launch_check_size(const launch_options *opt, int n_ranks)
{
    if (opt->tensor_parallel_size > 0 && opt->tensor_parallel_size != n_ranks)
        return TP_REJECT(TP_ERR_INVALID,
                         "--tensor-parallel-size %lld, but mpirun started %d rank%s: "
                         "leave the option out or make them equal",
                         (long long)opt->tensor_parallel_size, n_ranks, n_ranks == 1 ? "" : "s");
    return TP_OK;
}

/* Where the environment did not say how many there are. */
static tp_status check_world(const launch_options *opt, const comm_world *world)
{
    tp_status st = launch_check_size(opt, world->size);

    return st != TP_OK && world->rank == 0 ? TP_FAIL(st, "%s", tp_last_error()) : st;
}

tp_status launch_open_backend(kern_backend **out, launch_device *device, const launch_options *opt,
                              const comm_world *world)
{
    kern_open_args args = {.isa = getenv("TPSERVE_CPU_ISA")};

    TP_TRY(launch_choose_device(device, opt, world));
    args.n_threads = launch_bind(opt, world, device->pci);
    args.device = device->ordinal;
    if (args.isa != NULL && *args.isa == '\0')
        args.isa = NULL;
    TP_TRY(device->ops->open(out, &args));
    if (world->rank == 0)
        tp_info("launcher",
                "tpserve " TPSERVE_VERSION ": %d rank%s on %d host%s, device %s (%s%s%s), "
                "%d thread%s per rank",
                world->size, world->size == 1 ? "" : "s", world->n_hosts,
                world->n_hosts == 1 ? "" : "s", device->kind, device->name,
                device->name[0] != '\0' ? ", " : "", (*out)->isa, (*out)->n_threads,
                (*out)->n_threads == 1 ? "" : "s");
    return TP_OK;
}

/* All ranks, with a lifeline between them, and nothing in which they differ. */
static tp_status meet(comm_world *world, const launch_options *opt)
{
    comm_life_options lo = {.silence_ms = opt->step_timeout * 1000,
                            .join_ms = opt->startup_timeout * 1000};

    TP_TRY(comm_arrive(lo.join_ms));
    TP_TRY(comm_init(world));
    set_leader(world->rank == 0);
    tp_log_set_rank(world->rank, world->size);
    TP_TRY(check_world(opt, world));
    TP_TRY(launch_agree(opt, world));
    if (comm_life_start(world, &lo) != TP_OK) /* a rank is missing: nobody can leave in order */
        comm_abort(NULL, COMM_EXIT_ABSENT, tp_last_error());
    return TP_OK;
}

int launch_serve(const launch_options *opt)
{
    comm_world world;
    launch_device device = {0};
    kern_backend *be = NULL;
    tp_arena arena;
    tp_status st;

    tp_arena_init(&arena, 0);
    if (tp_hash_init() != TP_OK)
        return 1;
    st = start_watch(opt, launch_env_rank() <= 0);
    if (st == TP_OK)
        st = meet(&world, opt);
    /* a rank without a device goes on: all ranks agree in rt_engine_create that one has failed */
    if (st == TP_OK && launch_open_backend(&be, &device, opt, &world) != TP_OK)
        be = NULL;
    if (st == TP_OK)
        st = run(opt, &world, be, &device, &arena);
    if (be != NULL)
        be->ops->close(be);
    comm_finalize();
    tp_arena_release(&arena);
    return st == TP_OK ? 0 : 1;
}
