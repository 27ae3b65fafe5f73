/* SPDX-License-Identifier: Apache-2.0 */
/* test_speculation.c - prompt lookup against a search that looks everywhere, and when guesses are held to pay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/spec/ngram.h"
#include "runtime/spec/payoff.h"

#define TEXT_MAX 400
#define MOST     8

typedef struct text {
    tp_arena arena;
    rt_ngram g;
} text;

static void begin(text *t, int min, int max, const int32_t *prompt, int32_t n)
{
    tp_arena_init(&t->arena, 0);
    assert_int_equal(
        rt_ngram_init(&t->g, &t->arena, &(rt_ngram_options){min, max}, prompt, n, TEXT_MAX), TP_OK);
}

static void end(text *t)
{
    tp_arena_release(&t->arena);
}

/* ---- prompt lookup ---- */

static void test_goes_on_as_before(void **state)
{
    static const int32_t prompt[] = {1, 2, 3, 4, 5, 6, 7, 9, 2, 3, 4};
    int32_t out[MOST];
    text t;

    (void)state;
    begin(&t, 2, 4, prompt, 11);
    assert_int_equal(rt_ngram_guess(&t.g, 0, 3, out), 3);
    assert_memory_equal(out, ((int32_t[]){5, 6, 7}), 3 * sizeof *out);
    assert_int_equal(rt_ngram_guess(&t.g, 2, 2, out), 2); /* 5 and 6 are under way */
    assert_memory_equal(out, ((int32_t[]){7, 9}), 2 * sizeof *out);
    rt_ngram_append(&t.g, 8); /* never seen */
    assert_int_equal(rt_ngram_guess(&t.g, 0, 3, out), 0);
    end(&t);
}

static void test_longest_match_wins_then_the_newest(void **state)
{
    static const int32_t prompt[] = {1, 2, 3, 10, 2, 3, 20, 2, 3, 30, 1, 2, 3};
    int32_t out[1];
    text t;

    (void)state;
    begin(&t, 2, 8, prompt, 13);
    assert_int_equal(rt_ngram_guess(&t.g, 0, 1, out), 1);
    assert_int_equal(out[0], 10); /* 1 2 3 */
    end(&t);
    begin(&t, 2, 2, prompt, 13);
    assert_int_equal(rt_ngram_guess(&t.g, 0, 1, out), 1);
    assert_int_equal(out[0], 30); /* 2 3 */
    end(&t);
}

static void test_loops_go_on(void **state)
{
    static const int32_t prompt[] = {9, 1, 2, 3, 1, 2, 3};
    int32_t out[MOST];
    text t;

    (void)state;
    begin(&t, 3, 3, prompt, 7);
    assert_int_equal(rt_ngram_guess(&t.g, 1, MOST, out), MOST);
    assert_memory_equal(out, ((int32_t[]){2, 3, 1, 2, 3, 1, 2, 3}), sizeof out);
    end(&t);
}

/* Answers to one prompt share its part and go their own ways. */
static void test_forks(void **state)
{
    static const int32_t prompt[] = {1, 2, 3, 4, 1, 2};
    int32_t out[2];
    rt_ngram other;
    text t;

    (void)state;
    begin(&t, 2, 4, prompt, 6);
    assert_int_equal(rt_ngram_fork(&other, &t.arena, &t.g), TP_OK);
    rt_ngram_append(&t.g, 3);
    rt_ngram_append(&other, 7);
    assert_int_equal(rt_ngram_guess(&other, 0, 2, out), 0);
    assert_int_equal(rt_ngram_guess(&t.g, 0, 2, out), 2);
    assert_memory_equal(out, ((int32_t[]){4, 1}), sizeof out);
    rt_ngram_append(&other, 1);
    rt_ngram_append(&other, 2);
    assert_int_equal(rt_ngram_guess(&other, 0, 2, out), 2);
    assert_memory_equal(out, ((int32_t[]){7, 1}), sizeof out);
    end(&t);
}

static void test_short_texts(void **state)
{
    static const int32_t prompt[] = {5, 5};
    int32_t out[MOST];
    text t;

    (void)state;
    begin(&t, 3, 5, prompt, 1);
    assert_int_equal(rt_ngram_guess(&t.g, 0, MOST, out), 0);
    end(&t);
    begin(&t, 1, 1, prompt, 2);
    assert_int_equal(rt_ngram_guess(&t.g, 0, 2, out), 2);
    assert_memory_equal(out, ((int32_t[]){5, 5}), 2 * sizeof *out);
    end(&t);
}

/* What is guessed stands somewhere behind a match, and there is a guess whenever there is a match near enough. */
static void test_against_a_search(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (int round = 0; round < 200; round++) {
        int32_t tokens[TEXT_MAX], out[1], symbols = 2 + round % 7, n = 1;
        int min = 1 + round % 4;
        text t;

        tokens[0] = 0;
        begin(&t, min, 8, tokens, 1);
        while (n < 25 + round) {
            int longest = 0;

            rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407U;
            tokens[n] = (int32_t)((rng >> 33) % (uint64_t)symbols);
            rt_ngram_append(&t.g, tokens[n++]);
            for (int at = n - 2; at >= 0; at--) {
                int len = 0;

                while (len < 8 && len <= at && tokens[at - len] == tokens[n - 1 - len])
                    len++;
                longest = len > longest ? len : longest;
            }
            if (rt_ngram_guess(&t.g, 0, 1, out) == 0)
                assert_true(longest < min || n > RT_NGRAM_WALK);
            else
                assert_in_range(longest, min, 8);
        }
        end(&t);
    }
}

/* ---- does it pay? ---- */

static void test_share_of_rows(void **state)
{
    rt_step_cost c = {0};

    (void)state;
    assert_true(rt_step_cost_share(&c, 1) < 0.1); /* unknown: as on a CPU */
    for (int i = 0; i < 50; i++) {
        rt_step_cost_add(&c, 1 + i % 9, 1000000 + 50000 * (1 + i % 9));
        rt_step_cost_add(&c, RT_STEP_COST_ROWS_MAX + 1, 1); /* a prompt: says nothing */
    }
    assert_true(rt_step_cost_share(&c, 1) > 0.04 && rt_step_cost_share(&c, 1) < 0.06);
    assert_true(rt_step_cost_share(&c, 20) > 0.45 && rt_step_cost_share(&c, 20) < 0.55);
    assert_true(rt_step_cost_share(&c, 2000) > 0.95);
}

/* A step that takes as long with one row as with nine: guessing is free; one that grows with its rows: it never pays. */
static void test_extremes(void **state)
{
    rt_step_cost flat = {0}, steep = {0};

    (void)state;
    for (int i = 0; i < 50; i++) {
        rt_step_cost_add(&flat, 1 + i % 9, 1000000);
        rt_step_cost_add(&steep, 1 + i % 9, 1000000 * (1 + i % 9));
    }
    assert_true(rt_step_cost_share(&flat, 8) < 0.01);
    assert_true(rt_step_cost_share(&steep, 1) > 0.99);
}

static void test_guesses_that_come_true_get_longer(void **state)
{
    rt_guess_record r = rt_guess_record_new();
    int first = rt_guess_length(&r, 0.4, 16);

    (void)state;
    assert_in_range(first, 1, 4);
    for (int i = 0; i < 20; i++)
        rt_guess_learn(&r, 8, 8);
    assert_int_equal(rt_guess_length(&r, 0.4, 16), 16);
    assert_int_equal(rt_guess_length(&r, 0.4, 3), 3);
}

static void test_guesses_in_vain_end(void **state)
{
    rt_guess_record r = rt_guess_record_new();
    int tokens = 0, late = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        int n = rt_guess_length(&r, 0.3, 8);

        tokens += n;
        late += i >= 500 ? n : 0;
        if (n > 0)
            rt_guess_learn(&r, n, 0);
    }
    assert_in_range(tokens, 1, 40);
    assert_in_range(late, 1, 5);     /* it still tries, now and then */
    for (int i = 0; i < 1000; i++) { /* the text has begun to repeat itself */
        int n = rt_guess_length(&r, 0.3, 8);

        if (n > 0)
            rt_guess_learn(&r, n, n);
    }
    assert_int_equal(rt_guess_length(&r, 0.3, 8), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on_as_before),
        cmocka_unit_test(test_longest_match_wins_then_the_newest),
        cmocka_unit_test(test_loops_go_on),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_short_texts),
        cmocka_unit_test(test_against_a_search),
        cmocka_unit_test(test_share_of_rows),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_guesses_that_come_true_get_longer),
        cmocka_unit_test(test_guesses_in_vain_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
