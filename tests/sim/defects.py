#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""defects.py - the simulator must notice every one of these mistakes, and show it again from the seed that it prints.

    defects.py plant ROOT OUT          writes OUT/<file>: copies of the sources with all defects in them, each behind a
                                       number, and OUT/defects.c, which chooses one by name
    defects.py run PROGRAM STEPS       runs the program of these copies once per defect
    defects.py sources                 lists the files that have defects

In a defect, DEFECT stands for "this one is active".  A place is found whatever its white space; a place that has changed
fails the test, not the build: write the defect anew.
"""
import pathlib
import re
import subprocess
import sys

SCHED = "runtime/sched/sched.c"
POOL = "runtime/cache/block_pool.c"
CACHE = "runtime/cache/prefix_cache.c"

# name, file, the place, what takes its place
DEFECTS = [
    # ---- blocks ----
    ("one_block_too_few", SCHED, "return (n_tokens + s->opt.block_tokens - 1) / s->opt.block_tokens;",
     "return (n_tokens + s->opt.block_tokens - 1 - DEFECT) / s->opt.block_tokens;"),
    ("one_block_too_many", SCHED, "while (q->n_blocks < blocks_for(s, n_tokens)) {",
     "while (q->n_blocks < blocks_for(s, n_tokens + (DEFECT && n_tokens < q->n_total_max))) {"),
    ("shared_without_reference", SCHED, "rt_block_pool_ref(s->pool, p->blocks[i]);",
     "if (!DEFECT) rt_block_pool_ref(s->pool, p->blocks[i]);"),
    ("old_table_kept_after_preemption", SCHED, "q->n_blocks = q->n_blocks_sent = q->n_computed = q->n_offered = 0;",
     "q->n_blocks = q->n_computed = q->n_offered = 0; if (!DEFECT) q->n_blocks_sent = 0;"),
    ("blocks_leak_at_the_end", SCHED, "release_blocks(s, q);\n    if (q->slot >= 0) {",
     "if (DEFECT) q->n_blocks = q->n_blocks_sent = q->n_computed = 0; else release_blocks(s, q);\n"
     "    if (q->slot >= 0) {"),
    ("last_block_leaks", SCHED, "for (int32_t i = q->n_blocks - 1; i >= 0; i--)",
     "for (int32_t i = q->n_blocks - 1 - (DEFECT && q->n_blocks > 8); i >= 0; i--)"),
    ("shared_block_freed_by_the_first", POOL, "if (--b->refs > 0)",
     "if (--b->refs > 0 && !(DEFECT && (b->refs = 0) == 0))"),
    ("block_given_twice", POOL, "*id = p->free_stack[--p->n_free];",
     "*id = p->free_stack[--p->n_free]; if (DEFECT && p->n_free % 7 == 3) p->blocks[*id].refs = 0, p->n_free++;"),
    ("table_is_sent_short", SCHED, ".n_blocks = q->n_blocks - q->n_blocks_sent,",
     ".n_blocks = q->n_blocks - q->n_blocks_sent - (DEFECT && q->n_blocks - q->n_blocks_sent > 1),"),
    ("table_counted_as_sent_in_a_full_plan", SCHED, "if (!rt_plan_add_seq(w, &p, q->blocks + q->n_blocks_sent, draft))",
     "if (!rt_plan_add_seq(w, &p, q->blocks + q->n_blocks_sent, draft) && (!DEFECT || (q->n_blocks_sent = q->n_blocks)))"),
    # ---- forks ----
    ("fork_does_not_wait", SCHED, "(p->state == RT_SEQ_WAITING ||", "!DEFECT && (p->state == RT_SEQ_WAITING ||"),
    ("fork_shares_too_early", SCHED, "(p->state == RT_SEQ_RUNNING && p->n_computed < q->n_prompt));",
     "(p->state == RT_SEQ_RUNNING && p->n_computed < q->n_prompt - 5 * DEFECT));"),
    ("fork_shares_the_last_block", SCHED, "full = common / s->opt.block_tokens;",
     "full = (common + DEFECT * (s->opt.block_tokens - 1)) / s->opt.block_tokens;"),
    ("fork_without_its_copy", SCHED, "rt_plan_add_copy(w, q->blocks[full], p->blocks[full]))",
     "(DEFECT || rt_plan_add_copy(w, q->blocks[full], p->blocks[full])))"),
    ("copy_from_the_block_before", SCHED, "rt_plan_add_copy(w, q->blocks[full], p->blocks[full])",
     "rt_plan_add_copy(w, q->blocks[full], p->blocks[full - (DEFECT && full > 0)])"),
    ("oldest_is_preempted", SCHED, "rt_seq *victim = s->running.tail;",
     "rt_seq *victim = DEFECT ? s->running.head : s->running.tail;"),
    ("preempted_goes_on", SCHED, "if (victim == q)\n            return false;",
     "if (victim == q)\n            return DEFECT && take_blocks(s, q, n_tokens);"),
    ("preempted_neighbour_is_planned", SCHED, "next = q->next; /* preemption may have removed the neighbour */",
     "if (!DEFECT) next = q->next;"),
    ("preempted_goes_to_the_end", SCHED, "list_push_front(&s->waiting, q);\n    s->preemptions++;",
     "if (DEFECT) list_push_back(&s->waiting, q); else list_push_front(&s->waiting, q);\n    s->preemptions++;"),
    ("preempted_without_need", SCHED, "while (!take_blocks(s, q, n_tokens)) {",
     "while (!take_blocks(s, q, n_tokens) || (DEFECT && rt_block_pool_free_count(s->pool) == 0 && s->running.tail != q"
     " && s->running.tail->n_scheduled == 0)) {"),
    ("admitted_beside_a_preemption", SCHED, "if (s->preemptions == preemptions)",
     "if (s->preemptions == preemptions || DEFECT)"),
    ("rows_told_again_after_preemption", SCHED, "q->lp_start = q->n_computed;",
     "q->lp_start = DEFECT ? q->lp_start : q->n_computed;"),
    # ---- prefix cache ----
    ("name_outlives_its_block", SCHED, "rt_prefix_cache_forget(s->cache, q->blocks[q->n_blocks]);",
     "{ if (!DEFECT) rt_prefix_cache_forget(s->cache, q->blocks[q->n_blocks]); }"),
    ("taken_and_still_kept", POOL, "b->refs = 1;\n    b->kept = false;", "b->refs = 1;\n    b->kept = b->kept && DEFECT;"),
    ("salt_ignored", CACHE, "return hash(n, salt, len);", "return hash(n, salt, DEFECT ? 0 : len);"),
    ("name_without_its_past", CACHE, "in.before = *before;", "in.before = *before; if (DEFECT) in.before.word[0] = in.before.word[1] = 0;"),
    ("found_without_reference", SCHED, "rt_block_pool_ref(s->pool, q->blocks[q->n_blocks]);",
     "{ if (!DEFECT) rt_block_pool_ref(s->pool, q->blocks[q->n_blocks]); }"),
    ("offered_before_it_is_computed", SCHED, "int32_t full = smaller(q->n_named, q->n_computed / s->opt.block_tokens);",
     "int32_t full = smaller(q->n_named, (q->n_computed + DEFECT * (s->opt.block_tokens - 1)) / s->opt.block_tokens);"),
    ("not_offered", SCHED, "for (; q->n_offered < full; q->n_offered++) {",
     "for (; q->n_offered < full - DEFECT; q->n_offered++) {"),
    ("last_token_is_found", SCHED, "smaller(q->n_total - 1, q->lp_start)", "smaller(q->n_total - !DEFECT, q->lp_start)"),
    ("wanted_rows_are_found", SCHED, "q->lp_start) / s->opt.block_tokens);",
     "DEFECT ? INT32_MAX : q->lp_start) / s->opt.block_tokens);"),
    ("found_one_too_few", SCHED, "for (; n < most; n++) {", "for (; n < most - DEFECT; n++) {"),
    ("computes_what_it_found", SCHED, "q->n_computed = n * s->opt.block_tokens;\n    q->n_offered",
     "q->n_computed = (n - (DEFECT && n > 0)) * s->opt.block_tokens;\n    q->n_offered"),
    ("found_while_preempted_counts", SCHED, "if (s->cache == NULL || q->n_preempted > 0 ||",
     "if (s->cache == NULL || (q->n_preempted > 0 && !DEFECT) ||"),
    ("idle_blocks_counted_twice", SCHED, "need - n_found + n_idle", "need - n_found + n_idle * !DEFECT"),
    ("newest_is_thrown_out", POOL, "*id = p->idle_oldest;", "*id = DEFECT ? p->idle_newest : p->idle_oldest;"),
    ("thrown_out_without_need", POOL, "if (p->n_free > 0) {", "if (p->n_free > 0 && !(DEFECT && p->n_idle > 0)) {"),
    ("first_block_is_thrown_out_first", SCHED, "rt_block_pool_unref(s->pool, q->blocks[i]);",
     "rt_block_pool_unref(s->pool, q->blocks[DEFECT ? q->n_blocks - 1 - i : i]);"),
    ("drawn_while_preempted_forgotten", SCHED, "if (s->cache == NULL || q->names == NULL)",
     "if (s->cache == NULL || q->names == NULL || (DEFECT && q->state == RT_SEQ_WAITING))"),
    ("drawn_block_named_early", SCHED, "if (q->n_tail < s->opt.block_tokens)", "if (q->n_tail < s->opt.block_tokens - DEFECT)"),
    # ---- speculation ----
    ("draft_over_the_end", SCHED, "q->n_total_max - q->n_total - 1);", "q->n_total_max - q->n_total - !DEFECT);"),
    ("draft_takes_the_last_blocks", SCHED, "if (rt_block_pool_free_count(s->pool) >= s->running.n",
     "if (DEFECT || rt_block_pool_free_count(s->pool) >= s->running.n"),
    ("draft_without_places", SCHED, "return smaller(n, q->n_blocks * s->opt.block_tokens - first);",
     "return DEFECT ? n : smaller(n, q->n_blocks * s->opt.block_tokens - first);"),
    ("draft_beside_the_budget", SCHED, "budget -= n + n_draft;", "budget -= n + n_draft * !DEFECT;"),
    ("drafts_crowd_out_a_decode", SCHED, "s->opt.max_tokens - s->running.n);",
     "s->opt.max_tokens - (DEFECT ? 1 : s->running.n));"),
    ("draft_in_too_large_a_batch", SCHED, "s->running.n > s->opt.draft_seqs_max))",
     "s->running.n > s->opt.draft_seqs_max + DEFECT))"),
    ("draft_larger_than_the_box", SCHED, "smaller(smaller(s->opt.draft_max, q->n_draft_max), s->draft_room);",
     "smaller(DEFECT ? s->opt.draft_max : smaller(s->opt.draft_max, q->n_draft_max), s->draft_room);"),
    ("draft_behind_a_known_token", SCHED, "q->n_total - q->n_known, most", "DEFECT ? 0 : q->n_total - q->n_known, most"),
    ("draft_counts_as_computed", SCHED, "q->n_computed += p->n_new - p->n_draft;",
     "q->n_computed += p->n_new - p->n_draft * !DEFECT;"),
    ("came_true_and_is_computed_again", SCHED, "q->n_total++;\n        q->n_computed++;",
     "q->n_total++;\n        if (!DEFECT) q->n_computed++;"),
    ("came_true_and_is_not_counted", SCHED, "if (q->n_known == q->n_total) {", "if (q->n_known == q->n_total && !DEFECT) {"),
    ("planned_before_it_is_settled", SCHED, "return s->n_unsettled > 0;", "return s->n_unsettled > 0 && !DEFECT;"),
    ("never_settled", SCHED, "s->n_unsettled--;", "if (!DEFECT) s->n_unsettled--;"),
    # ---- order and budgets ----
    ("watermark_forgotten", SCHED, "int32_t keep = s->running.n > 0 ? s->watermark : 0;",
     "int32_t keep = s->running.n > 0 && !DEFECT ? s->watermark : 0;"),
    ("watermark_for_an_idle_cache", SCHED, "< keep)\n        return false;", "< (DEFECT ? s->watermark : keep))\n        return false;"),
    ("overtaken_at_admission", SCHED, "if (!admit(s, w, q))\n            break;",
     "if (!admit(s, w, q)) {\n            if (DEFECT) continue; else break; }"),
    ("youngest_first", SCHED, "q->guesses = rt_guess_record_new();\n    list_push_back(&s->waiting, q);",
     "q->guesses = rt_guess_record_new();\n"
     "    if (DEFECT) list_push_front(&s->waiting, q); else list_push_back(&s->waiting, q);"),
    ("paused_is_admitted", SCHED, "if (fork_must_wait(q) || q->n_new_max == 0)",
     "if (fork_must_wait(q) || (q->n_new_max == 0 && !DEFECT))"),
    ("paused_goes_on", SCHED, "int32_t n = smaller(smaller(open, budget), q->n_new_max);",
     "int32_t n = smaller(smaller(open, budget), q->n_new_max == 0 && DEFECT ? 1 : q->n_new_max);"),
    ("limit_of_rows_ignored", SCHED, "n = smaller(smaller(q->n_total - q->n_computed, budget), q->n_new_max);",
     "n = smaller(smaller(q->n_total - q->n_computed, budget), DEFECT ? INT32_MAX : q->n_new_max);"),
    ("budget_exceeded", SCHED, "budget = plan_running(s, w, budget, PROMPTS);",
     "budget = plan_running(s, w, budget + DEFECT, PROMPTS) - DEFECT;"),
    ("prompts_go_first", SCHED, "budget = plan_running(s, w, budget, DECODES);",
     "budget = plan_running(s, w, budget, DEFECT ? PROMPTS : DECODES); if (DEFECT) budget = plan_running(s, w, budget, DECODES);"),
    ("one_prompt_per_plan", SCHED, "n <= 0 || (open == 1) != (kind == DECODES)", "n <= 0 || ((open == 1) != (kind == DECODES) && !DEFECT)"),
    # ---- ends ----
    ("closed_without_being_open", SCHED, "if (q->opened)\n", "if (q->opened || DEFECT)\n"),
    ("slot_free_before_it_is_closed", SCHED, "s->closing[s->n_closing++] = q->slot;",
     "{ if (DEFECT) s->free_slots[s->n_free_slots++] = q->slot; else s->closing[s->n_closing++] = q->slot; }"),
    ("one_token_too_many", SCHED, "? q->n_total == q->n_total_max :", "? q->n_total == q->n_total_max + DEFECT :"),
    ("let_go_before_the_end", SCHED, "q->n_total += p->sampled;",
     "q->n_total += p->sampled; if (DEFECT && p->sampled && q->n_total == q->n_total_max - 1) q->n_total++;"),
    ("draws_in_the_middle_of_a_prompt", SCHED, "q->n_computed + n == q->n_total;",
     "(q->n_computed + n == q->n_total || DEFECT);"),
    ("prompt_alone_draws", SCHED, "bool sampled = samples(q) &&", "bool sampled = (samples(q) || DEFECT) &&"),
    ("waiting_leaves_its_slot_behind", SCHED, "else\n            s->free_slots[s->n_free_slots++] = q->slot;",
     "else if (!DEFECT)\n            s->free_slots[s->n_free_slots++] = q->slot;"),
]


def flexible(text):
    """A pattern for the text with any white space between its words."""
    return re.compile(r"\s+".join(re.escape(word) for word in text.split()))


def plant(root, out):
    planted = []
    for file in sorted({d[1] for d in DEFECTS}):
        text = (root / file).read_text()
        for number, (name, where, old, new) in enumerate(DEFECTS, 1):
            if where != file:
                continue
            found = list(flexible(old).finditer(text))
            if len(found) != 1:
                print(f"defects.py: {name}: its place is {len(found)} times in {file}", file=sys.stderr)
                continue
            new = new.replace("DEFECT", f"sim_defect({number})")
            text = text[:found[0].start()] + new + text[found[0].end():]
            planted.append((name, number))
        head = '#include "tests/sim/sim_defects.h"\n'
        (out / pathlib.Path(file).name).write_text(head + text)
    names = "\n".join(f'    {{"{name}", {number}}},' for name, number in planted)
    (out / "defects.c").write_text(f"""#include "tests/sim/sim_defects.h"
#include <string.h>
static const struct {{ const char *name; int number; }} defects[] = {{
{names}
}};
static int active;
bool sim_plant_defect(const char *name)
{{
    for (unsigned i = 0; i < sizeof defects / sizeof *defects; i++)
        if (strcmp(defects[i].name, name) == 0)
            active = defects[i].number;
    return active != 0;
}}
bool sim_defect(int number)
{{
    return number == active;
}}
""")


def simulate(program, *args):
    done = subprocess.run([program, *args], capture_output=True, text=True, errors="replace", timeout=600)
    return done.returncode, done.stdout


def judge(program, name, steps):
    """What is wrong with the simulator in the face of this defect (None: nothing), and what it said."""
    code, out = simulate(program, "--defect", name, "--steps", steps)
    if code == 2:
        return "could not be planted: its place in the source has changed", ""
    said = re.search(r"FAILED: (.*)", out)
    again = re.search(r"see it again with: sim (.*) --verbose", out)
    if code == 0 or said is None or again is None:
        return "not noticed", ""
    plan = re.search(r"episode of seed (\d+), plan (\d+)", out)
    code, second = simulate(program, "--defect", name, *again.group(1).split())
    if code == 0 or said.group(1) not in second or plan.group(0) not in second:
        return f"not the same again with {again.group(1)}", said.group(1)
    return None, f"{plan.group(0)}: {said.group(1)}"


def run(program, steps):
    missed = 0
    for name, *_ in DEFECTS:
        wrong, said = judge(program, name, steps)
        missed += wrong is not None
        print(f"{'ok    ' if wrong is None else 'FAILED'} {name:40} {wrong or ''} {said}", flush=True)
    print(f"{len(DEFECTS) - missed} of {len(DEFECTS)} planted defects noticed within {steps} steps, and seen again")
    return missed > 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["plant"] and len(sys.argv) == 4:
        plant(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    elif sys.argv[1:2] == ["run"] and len(sys.argv) == 4:
        sys.exit(run(sys.argv[2], sys.argv[3]))
    elif sys.argv[1:] == ["sources"]:
        print(";".join(sorted({d[1] for d in DEFECTS})), end="")
    else:
        sys.exit(__doc__)
