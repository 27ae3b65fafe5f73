/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_life.c - what ranks hear from each other on the lifeline: at the door, where anybody may knock; as rank 0 from the
 * others; as another rank from rank 0.
 *
 * Input: a letter on a line of its own, d (door), l (rank 0), f (another rank); then what comes over which connection:
 *   1b RANK CODE IN_STEP STEP DONE STIRS TEXT    a frame on connection 1; the letter is its kind: h w b l f y, or another.
 *                                                A text that begins with @ has the token there
 *   2xBYTES                                      the bytes as they are
 * Promises: whoever is let in knew the token and has a place of its own; a loss is told once, with a text that ends; a
 * connection that has ended is closed.
 */
#include <inttypes.h>

/* White box: the thread's rounds are made by hand. */
#include "comm/life.c"
#include "comm/life_net.c"

#include "base/buf.h"
#include "base/mem.h"
#include "tests/fuzz/fuzz.h"

#define CONNECTIONS 4
#define SENT_MAX    ((size_t)64 << 10) /* of a connection: a socket takes that much without a reader */

static const char k_token[COMM_LIFE_TOKEN + 1] = "a token of tests";
static int g_losses;

/* ---- what comm/ needs from MPI and the groups ---- */

tp_status comm_mpi_share(void *buf, size_t bytes)
{
    (void)buf;
    (void)bytes;
    return TP_OK;
}

int64_t comm_arrived(void)
{
    return tp_now_ns();
}

bool comm_may_say(bool would)
{
    return would;
}

void comm_give_up_all(void) {}

/* ---- the other ends ---- */

static uint16_t kind_of(char letter)
{
    static const char k_letters[] = "?hwblfy";
    const char *at = letter != '\0' ? strchr(k_letters, letter) : NULL;

    return at != NULL ? (uint16_t)(at - k_letters) : (uint16_t)(unsigned char)letter;
}

static void put_frame(tp_buf *b, const char *line)
{
    comm_frame f = {.magic = COMM_FRAME_MAGIC, .kind = kind_of(line[0])};
    int at = 0;

    (void)sscanf(line + 1,
                 "%" SCNd32 " %" SCNd32 " %" SCNu16 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n",
                 &f.rank, &f.code, &f.in_step, &f.step, &f.done, &f.stirs, &at);
    line += 1 + at + (at > 0 && line[1 + at] == ' ');
    if (at > 0 && *line == '@') {
        memcpy(f.text, k_token, COMM_LIFE_TOKEN);
        memcpy(f.text + COMM_LIFE_TOKEN, line + 1,
               strnlen(line + 1, sizeof f.text - COMM_LIFE_TOKEN));
    } else if (at > 0) {
        memcpy(f.text, line, strnlen(line, sizeof f.text));
    }
    tp_buf_put(b, &f, sizeof f);
}

static void read_input(tp_buf sent[CONNECTIONS], fuzz_part rest)
{
    fuzz_part part;

    for (int i = 0; i < CONNECTIONS; i++)
        tp_buf_init(&sent[i], SENT_MAX);
    while (fuzz_next_line(&rest, &part)) {
        tp_buf line, *to;

        if (part.n < 2)
            continue;
        to = &sent[(unsigned char)part.text[0] % CONNECTIONS];
        if (part.text[1] == 'x') {
            tp_buf_put(to, part.text + 2, part.n - 2);
            continue;
        }
        tp_buf_init(&line, SIZE_MAX);
        tp_buf_put(&line, part.text + 1, part.n - 1);
        put_frame(to, tp_buf_str(&line));
        tp_buf_release(&line);
    }
}

/* A connection on which the bytes have come and nothing more will. */
static int connection(const tp_buf *sent, int *other)
{
    int fds[2];

    TP_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    TP_ASSERT(sent->len == 0 ||
              send(fds[1], sent->data, sent->len, MSG_NOSIGNAL) == (ssize_t)sent->len);
    TP_ASSERT(shutdown(fds[1], SHUT_WR) == 0);
    *other = fds[1];
    return fds[0];
}

/* ---- the door ---- */

static void try_door(const tp_buf sent[CONNECTIONS])
{
    comm_world world = {.size = CONNECTIONS, .local_size = CONNECTIONS, .n_hosts = 1, .host = "h"};
    comm_wire wires[CONNECTIONS];
    comm_life_places places = {0};
    invitation inv = {.name = "n"};
    door d = {.inv = &inv, .world = &world, .wires = wires, .places = &places, .n_joined = 1};
    int others[CONNECTIONS], joined = 1;

    memcpy(inv.token, k_token, COMM_LIFE_TOKEN);
    for (int i = 0; i < CONNECTIONS; i++) {
        comm_wire_open(&wires[i], -1);
        comm_wire_open(&d.strangers[i].wire, connection(&sent[i], &others[i]));
        d.strangers[i].since_ns = tp_now_ns();
    }
    d.n_strangers = CONNECTIONS;
    hear_strangers(&d);
    TP_ASSERT(d.n_strangers == 0); /* each has said all it will */
    for (int r = 0; r < CONNECTIONS; r++) {
        TP_ASSERT(r > 0 || wires[r].fd < 0);
        TP_ASSERT(strnlen(places.host[r], sizeof places.host[r]) < sizeof places.host[r]);
        joined += wires[r].fd >= 0;
        comm_wire_close(&wires[r]);
        close(others[r]);
    }
    TP_ASSERT(joined == d.n_joined);
    TP_ASSERT(joined == CONNECTIONS || say_absent(&d) == TP_ERR_TIMEOUT);
}

/* ---- the life ---- */

static void count_loss(void *owner)
{
    (void)owner;
    g_losses++;
}

static void begin_life(int rank)
{
    atomic_store(&g.started, true);
    atomic_store(&g.lost, false);
    atomic_store(&g.leader_gone, false);
    g.world = (comm_world){
        .rank = rank, .size = CONNECTIONS, .local_size = CONNECTIONS, .n_hosts = 1, .host = "h"};
    g.places = (comm_life_places){.host = {"h", "i"}, .pid = {1, 2}};
    g.silence_ns = TP_NS_PER_S * 3600;
    g.beat_ns = TP_NS_PER_S;
    g.called = false;
    g.why[0] = '\0';
    g_losses = 0;
    comm_life_on_loss(count_loss, NULL);
}

static void check_life(void)
{
    const char *why = NULL;
    comm_life_view v;
    char name[128];

    TP_ASSERT(g_losses == (comm_life_lost(&why) ? 1 : 0));
    TP_ASSERT(g_losses == 0 || strnlen(why, sizeof g.why) < sizeof g.why);
    for (int r = -1; r <= CONNECTIONS; r++) {
        (void)comm_life_look(r, &v);
        comm_life_name(r, name, sizeof name);
    }
    comm_life_name(g.lost_rank, name, sizeof name);
    (void)comm_life_all_leave();
}

/* The rounds of live(), without its waiting. */
static void try_life(const tp_buf sent[CONNECTIONS], int rank)
{
    int others[CONNECTIONS];

    begin_life(rank);
    for (int r = 0; r < CONNECTIONS; r++) {
        g.peers[r] = (peer){.wire.fd = -1, .heard_ns = tp_now_ns()};
        others[r] = -1;
        if (is_peer(r))
            comm_wire_open(&g.peers[r].wire, connection(&sent[r], &others[r]));
    }
    send_beats();
    for (int r = 0; r < CONNECTIONS; r++) {
        if (is_peer(r)) {
            hear(r, &g.peers[r]);
            judge_silence(r, tp_now_ns(), g.silence_ns);
            TP_ASSERT(g.peers[r].wire.fd < 0);
        }
    }
    send_beats();
    check_life();
    for (int r = 0; r < CONNECTIONS; r++) {
        comm_wire_close(&g.peers[r].wire);
        if (others[r] >= 0)
            close(others[r]);
    }
    atomic_store(&g.started, false);
}

static void try_welcome(const tp_buf *sent)
{
    comm_frame hello = {.magic = COMM_FRAME_MAGIC, .kind = COMM_FRAME_HELLO, .rank = 1};
    comm_wire w;
    int other;

    comm_wire_open(&w, connection(sent, &other));
    if (is_welcome(&w, &hello, tp_now_ns() + 3600 * TP_NS_PER_S))
        TP_ASSERT(strnlen(w.in.text, sizeof w.in.text) < sizeof w.in.text);
    comm_wire_close(&w);
    close(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {(const char *)data, size}, mode = {"", 0};
    tp_buf sent[CONNECTIONS];

    fuzz_init();
    (void)fuzz_next_line(&rest, &mode);
    read_input(sent, rest);
    if (mode.n == 1 && mode.text[0] == 'd') {
        try_door(sent);
    } else if (mode.n == 1 && mode.text[0] == 'f') {
        try_welcome(&sent[0]);
        try_life(sent, 1);
    } else {
        try_life(sent, 0);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        tp_buf_release(&sent[i]);
    return 0;
}
