/* SPDX-License-Identifier: Apache-2.0 */
/* test_launch_devices.c - which rank takes which GPU, and what `doctor` says about made-up hosts. */
#include "tests/unit/base/base_testing.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "launcher/doctor.h"

#define RANKS 8
#define GIB   (INT64_C(1) << 30)

static launch_gpu_seat g_seats[RANKS];
static launch_checkup g_ranks[RANKS];

/* `per_host` ranks on each host, every rank seeing n GPUs of one model. */
static void make_seats(int n_ranks, int per_host, int n)
{
    memset(g_seats, 0, sizeof g_seats);
    for (int r = 0; r < n_ranks; r++) {
        launch_gpu_seat *s = &g_seats[r];

        (void)snprintf(s->host, sizeof s->host, "node%d", r / per_host);
        s->local_rank = r % per_host;
        s->local_size = per_host;
        s->n = n;
        for (int i = 0; i < n; i++) {
            (void)snprintf(s->names[i], sizeof s->names[i], "NVIDIA H100");
            (void)snprintf(s->uuids[i], sizeof s->uuids[i], "GPU-%d-%d", r / per_host, i);
        }
    }
}

static void assert_text(const char *text)
{
    if (strstr(tp_last_error(), text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, tp_last_error());
}

static void test_one_gpu_per_local_rank(void **state)
{
    int ordinals[RANKS];

    (void)state;
    make_seats(8, 4, 4);
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 8, false), TP_OK);
    for (int r = 0; r < 8; r++)
        assert_int_equal(ordinals[r], r % 4);
    make_seats(2, 2, 8); /* more than needed */
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 2, false), TP_OK);
    assert_int_equal(ordinals[1], 1);
}

/* srun --gpus-per-task=1 shows every rank one device, of another UUID. */
static void test_devices_dealt_out_by_the_job_manager(void **state)
{
    int ordinals[RANKS];

    (void)state;
    make_seats(4, 4, 1);
    for (int r = 0; r < 4; r++)
        (void)snprintf(g_seats[r].uuids[0], sizeof g_seats[r].uuids[0], "MIG-%d", r);
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 4, false), TP_OK);
    for (int r = 0; r < 4; r++)
        assert_int_equal(ordinals[r], 0);
    /* the same one twice is not dealt out */
    (void)snprintf(g_seats[3].uuids[0], sizeof g_seats[3].uuids[0], "MIG-0");
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 4, false), TP_ERR_DEVICE);
}

static void test_too_few_and_none(void **state)
{
    int ordinals[RANKS] = {77};

    (void)state;
    make_seats(8, 4, 2);
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 8, false), TP_ERR_DEVICE);
    assert_text("node0 runs 4 ranks but shows them 2 GPUs: 0 = NVIDIA H100 (GPU-0-0), 1 =");
    assert_text("local ranks from 2 on have none");
    assert_text("CUDA_VISIBLE_DEVICES");
    make_seats(8, 4, 4);
    g_seats[5].n = 0;
    (void)snprintf(g_seats[5].why, sizeof g_seats[5].why, "no driver");
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 8, false), TP_ERR_DEVICE);
    assert_text("host node1 has no usable GPU: no driver");
}

static void test_mixed_models_need_a_word(void **state)
{
    int ordinals[RANKS];

    (void)state;
    make_seats(8, 4, 4);
    (void)snprintf(g_seats[6].names[2], sizeof g_seats[6].names[2], "NVIDIA A100");
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 8, false), TP_ERR_INVALID);
    assert_text("rank 6 on node1 has NVIDIA A100");
    assert_text("--allow-mixed-gpus");
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 8, true), TP_OK);
    /* a device of another model that nobody takes is no mixture */
    make_seats(2, 2, 4);
    (void)snprintf(g_seats[0].names[3], sizeof g_seats[0].names[3], "NVIDIA A100");
    assert_int_equal(launch_assign_gpus(ordinals, g_seats, 2, false), TP_OK);
}

/* ---- doctor ---- */

static void make_host(int n_gpus)
{
    launch_checkup *c = &g_ranks[0];

    memset(g_ranks, 0, sizeof g_ranks);
    *c = (launch_checkup){.world = {.size = 1, .local_size = 1, .n_hosts = 1, .host = "node"},
                          .isa = "avx512",
                          .cores = 16,
                          .usable = 16,
                          .memory = 64 * GIB,
                          .available = 60 * GIB,
                          .cgroup_limit = INT64_MAX,
                          .shm = 32 * GIB,
                          .shm_free = 32 * GIB,
                          .files = 65536,
                          .files_max = 65536,
                          .n_gpus = n_gpus,
                          .module = n_gpus > 0};
    if (n_gpus > 0)
        (void)snprintf(c->driver, sizeof c->driver, "580");
    for (int i = 0; i < n_gpus; i++) {
        c->gpus[i] = (kern_device_info){.ordinal = i,
                                        .name = "NVIDIA H100",
                                        .cc = 90,
                                        .driver = 13000,
                                        .runtime = 13000,
                                        .memory_total = 80 * GIB,
                                        .memory_free = 79 * GIB,
                                        .peers = 0xff};
        (void)snprintf(c->gpus[i].uuid, sizeof c->gpus[i].uuid, "GPU-%d", i);
    }
}

/* Judges g_ranks; the one finding must hold `text` and be as serious as said.  NULL: there is none. */
static void assert_finding(int n_ranks, const launch_measured *m, const char *device, bool serious,
                           const char *text)
{
    static const launch_measured k_nothing;
    launch_findings f;

    launch_judge(&f, g_ranks, n_ranks, m != NULL ? m : &k_nothing, device);
    if (text == NULL) {
        if (f.n > 0)
            fail_msg("found \"%s\"", f.items[0].what);
        return;
    }
    assert_int_equal(f.n, 1);
    assert_int_equal(f.items[0].serious, serious);
    if (strstr(f.items[0].what, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, f.items[0].what);
}

static void test_sound_hosts(void **state)
{
    (void)state;
    make_host(0);
    assert_finding(1, NULL, "auto", false, NULL);
    make_host(8);
    assert_finding(1, NULL, "auto", false, NULL);
}

static void test_findings_about_gpus(void **state)
{
    (void)state;
    make_host(0);
    assert_finding(1, NULL, "cuda", true, "there is no driver");
    (void)snprintf(g_ranks[0].driver, sizeof g_ranks[0].driver, "580");
    (void)snprintf(g_ranks[0].gpu_error, sizeof g_ranks[0].gpu_error, "no libtpserve_cuda.so");
    assert_finding(1, NULL, "auto", true, "has no CUDA module: no libtpserve_cuda.so");
    assert_finding(1, NULL, "cpu", true, NULL);
    g_ranks[0].module = true;
    assert_finding(1, NULL, "auto", true, "no GPU can be used");
    g_ranks[0].gpu_error[0] = '\0';
    assert_finding(1, NULL, "auto", true, "shows no GPU to this process");
    make_host(2);
    g_ranks[0].gpus[1].cc = 75;
    assert_finding(1, NULL, "auto", true, "GPU 1 (NVIDIA H100) is of compute capability 7.5");
    make_host(2);
    g_ranks[0].gpus[0].driver = g_ranks[0].gpus[1].driver = 12020;
    assert_finding(1, NULL, "auto", true, "it knows CUDA 12.2, this program uses 13.0");
    make_host(2);
    g_ranks[0].gpus[1].memory_free = 40 * GIB;
    assert_finding(1, NULL, "auto", false, "GPU 1 has 40.0 of 80.0 GiB free");
    make_host(4);
    g_ranks[0].gpus[2].peers = 0x4;
    assert_finding(1, NULL, "auto", false, "GPU 2 cannot reach the memory of GPU 0");
}

static void test_findings_about_hosts(void **state)
{
    (void)state;
    make_host(0);
    g_ranks[0].available = GIB / 2;
    assert_finding(1, NULL, "auto", true, "only 0.5 GiB");
    make_host(0);
    g_ranks[0].shm = 16 << 20;
    g_ranks[0].shm_free = 1 << 20;
    assert_finding(1, NULL, "auto", true, "/dev/shm has 16 MiB (1 free)");
    make_host(0);
    g_ranks[0].files = 1024;
    assert_finding(1, NULL, "auto", false, "ulimit -n 65536");
    make_host(0);
    g_ranks[0].quota = 2;
    assert_finding(1, NULL, "auto", false, "2.0 of 16 cores");
    make_host(0);
    g_ranks[1] = g_ranks[0];
    g_ranks[1].world.rank = g_ranks[1].world.local_rank = 1;
    (void)snprintf(g_ranks[1].isa, sizeof g_ranks[1].isa, "avx2");
    assert_finding(2, NULL, "auto", false, "TPSERVE_CPU_ISA=avx2");
}

static void test_findings_about_measurements(void **state)
{
    launch_measured m = {.disk_gbps = 0.1, .disk_bytes = 1 << 30};

    (void)state;
    make_host(0);
    assert_finding(1, &m, "auto", false, "100 GB take 17 minutes");
    m = (launch_measured){.port_error = "127.0.0.1 port 8000: Address already in use"};
    assert_finding(1, &m, "auto", true, "cannot listen on 127.0.0.1 port 8000");
    m = (launch_measured){.sweep_error = "timeout"};
    assert_finding(1, &m, "auto", true, "do not work: timeout");
    m = (launch_measured){.model_error = "no file in /m"};
    assert_finding(1, &m, "auto", true, "no file in /m");
}

static void test_ports(void **state)
{
    launch_measured m = {0};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    launch_check_port(&m, "127.0.0.1", 0);
    assert_string_equal(m.port_error, "");
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    launch_check_port(&m, "127.0.0.1", ntohs(a.sin_port));
    assert_non_null(strstr(m.port_error, "in use"));
    close(fd);
    m = (launch_measured){0};
    launch_check_port(&m, "no such host", 1);
    assert_true(m.port_error[0] != '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_gpu_per_local_rank),
        cmocka_unit_test(test_devices_dealt_out_by_the_job_manager),
        cmocka_unit_test(test_too_few_and_none),
        cmocka_unit_test(test_mixed_models_need_a_word),
        cmocka_unit_test(test_sound_hosts),
        cmocka_unit_test(test_findings_about_gpus),
        cmocka_unit_test(test_findings_about_hosts),
        cmocka_unit_test(test_findings_about_measurements),
        cmocka_unit_test(test_ports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
