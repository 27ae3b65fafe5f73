/* SPDX-License-Identifier: Apache-2.0 */
/* life_net.c - frames over stream sockets, and the join.
 *
 * Ranks of one host meet at an abstract Unix socket: no file, no port, gone with its owner.  Over several hosts rank 0
 * listens on a TCP port that the kernel picks, until all have joined; MPI carries its addresses and a random token,
 * without which nobody is let in.  The others try the addresses in turn.  When all are there, rank 0 welcomes them: so
 * the join is a barrier, and it is the first one that can name who is missing.
 */
#include "comm/life_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "comm/mpi/mpi_boot.h"

#define STRANGERS_MAX 64 /* connections that have not said who they are */
#define STRANGER_NS   (5 * TP_NS_PER_S)
#define CONNECT_MS    2000
#define RETRY_US      (20 * 1000)
#define FOLLOWER_NS   (5 * TP_NS_PER_S) /* rank 0 knows better who is missing: it speaks first */

/* ---- wires ---- */

void comm_wire_open(comm_wire *w, int fd)
{
    *w = (comm_wire){.fd = fd};
}

void comm_wire_close(comm_wire *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    w->got = w->left = 0;
}

comm_wire_state comm_wire_read(comm_wire *w)
{
    while (w->fd >= 0) {
        ssize_t n = recv(w->fd, (char *)&w->in + w->got, sizeof w->in - w->got,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return COMM_WIRE_NOTHING;
        if (n <= 0)
            break;
        w->got += (size_t)n;
        if (w->got < sizeof w->in)
            continue;
        w->got = 0;
        if (w->in.magic != COMM_FRAME_MAGIC)
            break;
        if (w->in.kind != COMM_FRAME_HELLO)
            w->in.text[sizeof w->in.text - 1] = '\0';
        return COMM_WIRE_FRAME;
    }
    return COMM_WIRE_CLOSED;
}

static void push_out(comm_wire *w)
{
    while (w->left > 0) {
        ssize_t n = send(w->fd, w->out, w->left, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* full, or closed: reading tells */
        w->left -= (size_t)n;
        memmove(w->out, w->out + n, w->left);
    }
}

bool comm_wire_write(comm_wire *w, const comm_frame *f)
{
    if (w->fd < 0)
        return false;
    push_out(w);
    if (w->left + sizeof *f > sizeof w->out)
        return false;
    memcpy(w->out + w->left, f, sizeof *f);
    w->left += sizeof *f;
    push_out(w);
    return true;
}

/* ---- where rank 0 is ---- */

typedef struct address {
    uint16_t family; /* AF_INET, AF_INET6 */
    uint8_t bytes[16];
} address;

/* What rank 0 tells the others through MPI. */
typedef struct invitation {
    uint8_t token[COMM_LIFE_TOKEN];
    char name[64]; /* of the abstract socket; "" = TCP */
    uint16_t port;
    int32_t n_addrs; /* -1: rank 0 could not listen */
    address addrs[COMM_LIFE_ADDRS];
} invitation;

static socklen_t unix_address(struct sockaddr_un *sa, const char *name)
{
    size_t len = strlen(name);

    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(sa->sun_path + 1, name, len); /* the leading NUL makes it abstract */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len);
}

/* The addresses of this host; the loopback ones, which mean another host elsewhere, only when there are no others. */
static int own_addresses(address *out, int max)
{
    struct ifaddrs *list = NULL;
    int n = 0;

    if (getifaddrs(&list) != 0)
        return 0;
    for (int loop = 0; loop <= 1 && n == 0; loop++) {
        for (struct ifaddrs *i = list; i != NULL && n < max; i = i->ifa_next) {
            bool is_loop = (i->ifa_flags & IFF_LOOPBACK) != 0;

            if (i->ifa_addr == NULL || (i->ifa_flags & IFF_UP) == 0 || is_loop != (loop == 1))
                continue;
            out[n].family = i->ifa_addr->sa_family;
            if (out[n].family == AF_INET) {
                const struct sockaddr_in *in = (const void *)i->ifa_addr;

                memcpy(out[n++].bytes, &in->sin_addr, 4);
            } else if (out[n].family == AF_INET6) {
                const struct sockaddr_in6 *in = (const void *)i->ifa_addr;

                if (!IN6_IS_ADDR_LINKLOCAL(&in->sin6_addr))
                    memcpy(out[n++].bytes, &in->sin6_addr, 16);
            }
        }
    }
    freeifaddrs(list);
    return n;
}

static int listen_unix(invitation *inv)
{
    struct sockaddr_un sa;
    socklen_t len;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    size_t at;

    at = (size_t)snprintf(inv->name, sizeof inv->name, "tpserve.life.");
    for (int i = 0; i < COMM_LIFE_TOKEN; i++)
        at += (size_t)snprintf(inv->name + at, sizeof inv->name - at, "%02x", inv->token[i]);
    len = unix_address(&sa, inv->name);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&sa, len) == 0 && listen(fd, STRANGERS_MAX) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_tcp(invitation *inv)
{
    struct sockaddr_storage bound = {0};
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t len = sizeof bound;
    int off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0 ||
                    bind(fd, (struct sockaddr *)&any6, sizeof any6) != 0)) {
        close(fd);
        fd = -1;
    }
    if (fd < 0) { /* a host without IPv6 */
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && bind(fd, (struct sockaddr *)&any4, sizeof any4) != 0) {
            close(fd);
            return -1;
        }
    }
    if (fd < 0)
        return -1;
    if (listen(fd, STRANGERS_MAX) != 0 || getsockname(fd, (struct sockaddr *)&bound, &len) != 0) {
        close(fd);
        return -1;
    }
    inv->port = bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                            : ((struct sockaddr_in *)&bound)->sin_port;
    inv->n_addrs = own_addresses(inv->addrs, COMM_LIFE_ADDRS);
    return fd;
}

/* ---- rank 0 lets the others in ---- */

typedef struct stranger {
    comm_wire wire;
    int64_t since_ns;
} stranger;

typedef struct door {
    int listener;
    const invitation *inv;
    const comm_world *world;
    comm_wire *wires;
    comm_life_places *places;
    int n_joined; /* rank 0 included */
    stranger strangers[STRANGERS_MAX];
    int n_strangers;
} door;

/* Constant time is not needed: a wrong token closes, and there is no second try within the life of a guess. */
static bool let_in(door *d, const comm_wire *w)
{
    const comm_frame *f = &w->in;

    if (f->kind != COMM_FRAME_HELLO || memcmp(f->text, d->inv->token, COMM_LIFE_TOKEN) != 0 ||
        f->rank < 1 || f->rank >= d->world->size || d->wires[f->rank].fd >= 0)
        return false;
    comm_wire_open(&d->wires[f->rank], w->fd);
    d->places->pid[f->rank] = f->code;
    (void)snprintf(d->places->host[f->rank], sizeof d->places->host[0], "%.63s",
                   f->text + COMM_LIFE_TOKEN);
    d->n_joined++;
    return true;
}

static void set_tcp(int fd)
{
    int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on Unix sockets */
}

static void accept_all(door *d)
{
    int fd;

    while ((fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (d->n_strangers == STRANGERS_MAX) {
            close(fd);
            continue;
        }
        set_tcp(fd);
        comm_wire_open(&d->strangers[d->n_strangers].wire, fd);
        d->strangers[d->n_strangers++].since_ns = tp_now_ns();
    }
}

static void hear_strangers(door *d)
{
    for (int i = 0; i < d->n_strangers;) {
        stranger *s = &d->strangers[i];
        comm_wire_state state = comm_wire_read(&s->wire);
        bool over = state == COMM_WIRE_CLOSED || tp_now_ns() - s->since_ns > STRANGER_NS;

        if (state == COMM_WIRE_FRAME) {
            over = true;
            if (let_in(d, &s->wire))
                s->wire.fd = -1;
        }
        if (!over) {
            i++;
            continue;
        }
        comm_wire_close(&s->wire);
        *s = d->strangers[--d->n_strangers];
    }
}

static tp_status say_absent(const door *d)
{
    char who[256] = "";
    size_t len = 0;

    for (int r = 1; r < d->world->size && len < sizeof who - 16; r++) {
        if (d->wires[r].fd < 0)
            len += (size_t)snprintf(who + len, sizeof who - len, "%s%d", len > 0 ? ", " : "", r);
    }
    return TP_FAIL(TP_ERR_TIMEOUT,
                   "rank %s of %d did not join within the --startup-timeout: it is stopped, or its "
                   "host cannot reach %s",
                   who, d->world->size, d->world->host);
}

static tp_status wait_at_door(door *d, int64_t deadline_ns)
{
    comm_frame welcome = {
        .magic = COMM_FRAME_MAGIC, .kind = COMM_FRAME_WELCOME, .code = (int32_t)getpid()};

    while (d->n_joined < d->world->size) {
        struct pollfd fds[STRANGERS_MAX + 1] = {{.fd = d->listener, .events = POLLIN}};

        for (int i = 0; i < d->n_strangers; i++)
            fds[i + 1] = (struct pollfd){.fd = d->strangers[i].wire.fd, .events = POLLIN};
        (void)poll(fds, (nfds_t)d->n_strangers + 1, 200);
        accept_all(d);
        hear_strangers(d);
        if (tp_now_ns() >= deadline_ns && d->n_joined < d->world->size)
            return say_absent(d);
    }
    memcpy(welcome.text, d->world->host, sizeof d->world->host);
    for (int r = 1; r < d->world->size; r++)
        (void)comm_wire_write(&d->wires[r], &welcome);
    return TP_OK;
}

static tp_status join_as_leader(comm_wire *wires, comm_life_places *places, const comm_world *world,
                                int64_t deadline_ns)
{
    invitation inv = {0};
    door d = {.inv = &inv, .world = world, .wires = wires, .places = places, .n_joined = 1};
    tp_status st;

    if (getrandom(inv.token, sizeof inv.token, 0) == sizeof inv.token)
        d.listener = world->n_hosts == 1 ? listen_unix(&inv) : listen_tcp(&inv);
    else
        d.listener = -1;
    if (d.listener < 0)
        inv.n_addrs = -1;
    TP_TRY(comm_mpi_share(&inv, sizeof inv));
    if (d.listener < 0)
        return TP_FAIL(TP_ERR_IO, "cannot listen for the other ranks: %s", strerror(errno));
    st = wait_at_door(&d, deadline_ns);
    close(d.listener);
    for (int i = 0; i < d.n_strangers; i++)
        comm_wire_close(&d.strangers[i].wire);
    return st;
}

/* ---- the others ---- */

static int connect_to(const struct sockaddr *sa, socklen_t len)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t n = sizeof error;

    if (fd < 0)
        return -1;
    if (connect(fd, sa, len) == 0)
        return fd;
    if (errno == EINPROGRESS && poll(&p, 1, CONNECT_MS) == 1 &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0)
        return fd;
    close(fd);
    return -1;
}

static int connect_address(const invitation *inv, const address *a)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = inv->port};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = inv->port};

    if (a->family == AF_INET) {
        memcpy(&in.sin_addr, a->bytes, 4);
        return connect_to((struct sockaddr *)&in, sizeof in);
    }
    memcpy(&in6.sin6_addr, a->bytes, 16);
    return connect_to((struct sockaddr *)&in6, sizeof in6);
}

/* Says hello and waits for the welcome: a socket somewhere else that happens to answer does not know it. */
static bool is_welcome(comm_wire *w, const comm_frame *hello, int64_t deadline_ns)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};

    if (!comm_wire_write(w, hello))
        return false;
    while (tp_now_ns() < deadline_ns) {
        comm_wire_state state = comm_wire_read(w);

        if (state == COMM_WIRE_FRAME)
            return w->in.kind == COMM_FRAME_WELCOME;
        if (state == COMM_WIRE_CLOSED)
            return false;
        (void)poll(&p, 1, 200);
    }
    return false;
}

static bool try_once(comm_wire *w, const invitation *inv, const comm_frame *hello,
                     int64_t deadline_ns)
{
    struct sockaddr_un sa;
    int n = inv->name[0] != '\0' ? 1 : inv->n_addrs;

    for (int i = 0; i < n; i++) {
        int fd = inv->name[0] != '\0'
                     ? connect_to((struct sockaddr *)&sa, unix_address(&sa, inv->name))
                     : connect_address(inv, &inv->addrs[i]);

        if (fd < 0)
            continue;
        set_tcp(fd);
        comm_wire_open(w, fd);
        if (is_welcome(w, hello, deadline_ns))
            return true;
        comm_wire_close(w);
    }
    return false;
}

static tp_status join_leader(comm_wire *w, comm_life_places *places, const comm_world *world,
                             int64_t deadline_ns)
{
    comm_frame hello = {.magic = COMM_FRAME_MAGIC,
                        .kind = COMM_FRAME_HELLO,
                        .rank = world->rank,
                        .code = (int32_t)getpid()};
    invitation inv = {0};

    TP_TRY(comm_mpi_share(&inv, sizeof inv));
    while (tp_fault_hit("comm.join"))
        for (;;)
            tp_sleep_us(RETRY_US);
    if (inv.n_addrs < 0)
        return TP_REJECT(TP_ERR_COMM, "rank 0 cannot listen for the other ranks");
    memcpy(hello.text, inv.token, COMM_LIFE_TOKEN);
    memcpy(hello.text + COMM_LIFE_TOKEN, world->host, sizeof world->host);
    while (!try_once(w, &inv, &hello, deadline_ns)) {
        if (tp_now_ns() >= deadline_ns)
            return world->rank == 1
                       ? TP_FAIL(TP_ERR_TIMEOUT,
                                 "rank %d on %s was not let in by rank 0 within the "
                                 "--startup-timeout: another rank is missing, or no network leads "
                                 "there",
                                 world->rank, world->host)
                       : TP_REJECT(TP_ERR_TIMEOUT, "not let in by rank 0");
        tp_sleep_us(RETRY_US);
    }
    places->pid[0] = w->in.code;
    (void)snprintf(places->host[0], sizeof places->host[0], "%.63s", w->in.text);
    return TP_OK;
}

tp_status comm_life_join(comm_wire *wires, comm_life_places *places, const comm_world *world,
                         int64_t deadline_ns)
{
    for (int r = 0; r < world->size; r++)
        comm_wire_open(&wires[r], -1);
    memset(places, 0, sizeof *places);
    (void)snprintf(places->host[world->rank], sizeof places->host[0], "%s", world->host);
    places->pid[world->rank] = (int)getpid();
    if (world->rank == 0)
        return join_as_leader(wires, places, world, deadline_ns);
    return join_leader(&wires[0], places, world, deadline_ns + FOLLOWER_NS);
}
