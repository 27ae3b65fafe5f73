/* SPDX-License-Identifier: Apache-2.0 */
/* test_life_wire.c - the lifeline's frames over a stream that cuts them anywhere, fills up, lies or ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "comm/life_net.h"

typedef struct pair {
    comm_wire a, b;
} pair;

static int set_up(void **state)
{
    static pair p;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        return -1;
    comm_wire_open(&p.a, fds[0]);
    comm_wire_open(&p.b, fds[1]);
    *state = &p;
    return 0;
}

static int tear_down(void **state)
{
    pair *p = *state;

    comm_wire_close(&p->a);
    comm_wire_close(&p->b);
    return 0;
}

static comm_frame beat(uint64_t step)
{
    return (comm_frame){
        .magic = COMM_FRAME_MAGIC, .kind = COMM_FRAME_BEAT, .step = step, .text = "hello"};
}

static void test_frames_arrive_in_order(void **state)
{
    pair *p = *state;

    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_NOTHING);
    for (uint64_t step = 1; step <= 3; step++) {
        comm_frame f = beat(step);

        assert_true(comm_wire_write(&p->a, &f));
    }
    for (uint64_t step = 1; step <= 3; step++) {
        assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_FRAME);
        assert_int_equal(p->b.in.step, step);
        assert_string_equal(p->b.in.text, "hello");
    }
    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_NOTHING);
}

static void test_a_frame_in_pieces(void **state)
{
    pair *p = *state;
    comm_frame f = beat(7);

    for (size_t i = 0; i < sizeof f; i++) {
        assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_NOTHING);
        assert_int_equal(write(p->a.fd, (const char *)&f + i, 1), 1);
    }
    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_FRAME);
    assert_int_equal(p->b.in.step, 7);
}

/* A stopped peer: writing never blocks, and what it finds when it goes on are whole frames, in order. */
static void test_a_peer_that_does_not_read(void **state)
{
    pair *p = *state;
    uint64_t sent = 0, last = 0;

    for (comm_frame f = beat(1); comm_wire_write(&p->a, &f); f = beat(sent + 1)) {
        sent++;
        assert_true(sent < 1000000);
    }
    for (;;) {
        comm_wire_state s = comm_wire_read(&p->b);

        if (s == COMM_WIRE_NOTHING)
            break;
        assert_int_equal(s, COMM_WIRE_FRAME);
        assert_int_equal(p->b.in.step, ++last);
    }
    assert_true(last > 0 && last <= sent);
    for (int i = 0; i < 2; i++) { /* what was kept goes first */
        comm_frame f = beat(sent + 1 + (uint64_t)i);

        assert_true(comm_wire_write(&p->a, &f));
    }
    while (comm_wire_read(&p->b) == COMM_WIRE_FRAME)
        assert_int_equal(p->b.in.step, ++last);
    assert_int_equal(last, sent + 2);
}

static void test_the_end(void **state)
{
    pair *p = *state;
    comm_frame f = beat(1);

    assert_true(comm_wire_write(&p->a, &f));
    comm_wire_close(&p->a);
    assert_false(comm_wire_write(&p->a, &f));
    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_FRAME); /* what was sent before counts */
    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_CLOSED);
    assert_int_equal(comm_wire_read(&p->a), COMM_WIRE_CLOSED);
}

static void test_strangers(void **state)
{
    pair *p = *state;
    comm_frame f = beat(1);

    f.magic++;
    assert_true(comm_wire_write(&p->a, &f));
    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_CLOSED);
}

static void test_text_always_ends(void **state)
{
    pair *p = *state;
    comm_frame f = beat(1);

    memset(f.text, 'x', sizeof f.text);
    assert_true(comm_wire_write(&p->a, &f));
    assert_int_equal(comm_wire_read(&p->b), COMM_WIRE_FRAME);
    assert_int_equal(strlen(p->b.in.text), sizeof f.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_frames_arrive_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_frame_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_peer_that_does_not_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strangers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_text_always_ends, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
