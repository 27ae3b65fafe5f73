/* SPDX-License-Identifier: Apache-2.0 */
/* pretok.c - the pre-tokeniser: cuts text into the pieces that byte-pair encoding may not cross.
 *
 * A pipeline of stages, each cutting every piece of the stage before it and seeing nothing outside that piece:
 *   Split      a regular expression or a literal; five ways to treat the matches (below), optionally inverted
 *   Digits     Split on \p{N}, single digits or runs
 *   ByteLevel  the last stage: optionally a space in front, optionally the GPT-2 expression
 *
 * Expressions run in PCRE2 with Unicode properties.  They are compiled anchored and tried at every character:
 * known patterns match nearly everywhere, and so one attempt is the unit that limits can be put on.  A pattern that
 * needs more than MATCH_STEPS_MAX backtracking steps at one place, or more processor time in all than
 * RUN_NS + RUN_NS_PER_BYTE * n, ends in LIMIT; no pattern can hang a thread.
 *
 * Oniguruma (which `tokenizers` uses, with Ruby's syntax) and PCRE2 agree on what pretok_syntax.c lets through,
 * given: "$" and "^" at line ends, newline = LF, \s = White_Space.  PCRE2 sees a copy of the text in which
 * characters of a newer Unicode have stand-ins of the same category and length (unicode.h).
 *
 * Threads: rt_pretok is read only after creation; every call has an rt_pretok_run of its own.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/clock.h"
#include "base/mem.h"
#include "runtime/tokenizer/internal.h"
#include "runtime/tokenizer/unicode.h"

#define STAGES_MAX      32
#define PATTERN_MAX     ((size_t)64 << 10)
#define MATCH_STEPS_MAX 10000000u
#define MATCH_HEAP_KIB  (64u << 10)
#define RUN_NS          TP_NS_PER_S
#define RUN_NS_PER_BYTE 1000
#define CLOCK_EVERY     16u /* attempts between two looks at the clock */
#define NO_MATCH        SIZE_MAX

#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* What becomes of matches m and of the text x between them. */
typedef enum behavior {
    ISOLATED,             /* x|m|x */
    REMOVED,              /* x|x */
    MERGED_WITH_PREVIOUS, /* xm|x */
    MERGED_WITH_NEXT,     /* x|mx */
    CONTIGUOUS            /* matches that follow one another are one piece */
} behavior;

typedef struct stage {
    pcre2_code *code; /* owned; NULL: put a space in front of pieces that have none */
    behavior how;
    bool invert;
    bool jit;
} stage;

struct rt_pretok {
    stage stages[STAGES_MAX];
    int n_stages;
    bool byte_level;            /* the closing stage was seen */
    pcre2_general_context *mem; /* owned */
    pcre2_match_context *match; /* owned */
};

/* A stretch of text and its copy for PCRE2 (the same pointer when nothing differs). */
typedef struct span {
    const char *text, *shown;
    size_t n;
} span;

struct rt_pretok_run {
    const rt_pretok *p;       /* borrowed */
    pcre2_match_data *result; /* owned */
    tp_buf shown;             /* copy of the text with stand-ins */
    tp_buf spaced[2];         /* a piece with a space in front: text, shown */
    rt_piece_fn fn;
    void *ctx;
    int64_t wall_end, cpu_end; /* ns */
    unsigned attempts;
};

/* Where a run of spans is merged into pieces; one span is held back. */
typedef struct joiner {
    size_t start, end;
    bool held, last_match;
} joiner;

/* ---- building ---- */

static void *pcre2_alloc(size_t n, void *unused)
{
    (void)unused;
    return tp_malloc(n);
}

static void pcre2_dealloc(void *p, void *unused)
{
    (void)unused;
    tp_free(p);
}

void rt_pretok_destroy(rt_pretok *p)
{
    if (p == NULL)
        return;
    for (int i = 0; i < p->n_stages; i++)
        pcre2_code_free(p->stages[i].code);
    pcre2_match_context_free(p->match);
    pcre2_general_context_free(p->mem);
    tp_free(p);
}

static tp_status add_stage(rt_pretok *p, const stage *s, const char *path)
{
    if (p->n_stages == STAGES_MAX)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: the pre_tokenizer has more than %d steps", path,
                       STAGES_MAX);
    p->stages[p->n_stages++] = *s;
    return TP_OK;
}

/* Compiles a pattern (or literal text) into s->code. */
static tp_status compile(rt_pretok *p, stage *s, const char *pattern, bool literal,
                         const char *path)
{
    uint32_t options = PCRE2_UTF | PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK |
                       (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    pcre2_compile_context *context;
    PCRE2_SIZE where = 0;
    int error = 0;

    if (strlen(pattern) > PATTERN_MAX)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: a pattern of the pre_tokenizer has %zu bytes", path,
                       strlen(pattern));
    context = pcre2_compile_context_create(p->mem);
    if (context == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "%s: compile a pattern", path);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    s->code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &error, &where, context);
    pcre2_compile_context_free(context);
    if (s->code == NULL) {
        char text[128] = "";

        if (error == PCRE2_ERROR_HEAP_FAILED)
            return TP_FAIL(TP_ERR_NOMEM, "%s: compile a pattern", path);
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        return TP_FAIL(TP_ERR_FORMAT, "%s: the pre_tokenizer's pattern \"%.200s\": %s, at byte %zu",
                       path, pattern, text, (size_t)where);
    }
    s->jit = pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE) == 0; /* else the slower interpreter */
    return TP_OK;
}

static tp_status add_pattern(rt_pretok *p, stage s, const char *pattern, bool literal,
                             const char *path)
{
    tp_status st = compile(p, &s, pattern, literal, path);

    if (st == TP_OK)
        st = add_stage(p, &s, path);
    if (st != TP_OK)
        pcre2_code_free(s.code);
    return st;
}

static tp_status read_behavior(const tp_json *json, behavior *out, const char *path)
{
    static const char *const NAMES[] = {
        [ISOLATED] = "Isolated",
        [REMOVED] = "Removed",
        [MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [MERGED_WITH_NEXT] = "MergedWithNext",
        [CONTIGUOUS] = "Contiguous",
    };
    const char *name = tp_json_get_string(json, "behavior", "");

    for (size_t i = 0; i < TP_ARRAY_LEN(NAMES); i++) {
        if (strcmp(name, NAMES[i]) == 0) {
            *out = (behavior)i;
            return TP_OK;
        }
    }
    return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: Split behavior \"%s\" is not known", path, name);
}

static tp_status add_split(rt_pretok *p, const tp_json *json, const char *path)
{
    const tp_json *pattern = tp_json_get(json, "pattern");
    const char *regex = tp_json_get_string(pattern, "Regex", NULL);
    const char *literal = tp_json_get_string(pattern, "String", NULL);
    stage s = {.invert = tp_json_get_bool(json, "invert", false)};

    if ((regex == NULL) == (literal == NULL))
        return TP_FAIL(TP_ERR_FORMAT,
                       "%s: a Split needs a pattern: {\"Regex\": ...} or "
                       "{\"String\": ...}",
                       path);
    TP_TRY(read_behavior(json, &s.how, path));
    if (literal != NULL)
        return literal[0] == '\0' ? TP_OK : add_pattern(p, s, literal, true, path);
    TP_TRY(rt_pretok_check_syntax(regex, path));
    return add_pattern(p, s, regex, false, path);
}

static tp_status add_byte_level(rt_pretok *p, const tp_json *json, const char *path)
{
    if (tp_json_get_bool(json, "add_prefix_space", true))
        TP_TRY(add_stage(p, &(stage){0}, path));
    if (tp_json_get_bool(json, "use_regex", true))
        TP_TRY(add_pattern(p, (stage){0}, GPT2_PATTERN, false, path));
    p->byte_level = true;
    return TP_OK;
}

/* Nesting is bounded by the depth limit of the JSON parser. */
static tp_status add_step(rt_pretok *p, const tp_json *json,
                          const char *path) /* NOLINT(misc-no-recursion) */
{
    const char *type = tp_json_get_string(json, "type", "");

    if (p->byte_level)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: pre_tokenizer %s after ByteLevel", path, type);
    if (strcmp(type, "Sequence") == 0) {
        TP_JSON_EACH(step, tp_json_get(json, "pretokenizers"))
        TP_TRY(add_step(p, step, path));
        return TP_OK;
    }
    if (strcmp(type, "Split") == 0)
        return add_split(p, json, path);
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(p, json, path);
    if (strcmp(type, "Digits") == 0) {
        stage s = {.how =
                       tp_json_get_bool(json, "individual_digits", false) ? ISOLATED : CONTIGUOUS};

        return add_pattern(p, s, rt_unicode_digit_pattern, false, path);
    }
    return TP_FAIL(TP_ERR_UNSUPPORTED,
                   "%s: pre_tokenizer \"%s\"%s is not supported; supported are ByteLevel, Split, "
                   "Digits and Sequence",
                   path, type,
                   strcmp(type, "Metaspace") == 0 ? " (a SentencePiece kind of tokenizer)" : "");
}

tp_status rt_pretok_create(rt_pretok **out, const tp_json *json, const char *path)
{
    rt_pretok *p = tp_calloc(1, sizeof *p);
    tp_status st = TP_OK;

    if (p == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "%s: pre_tokenizer", path);
    p->mem = pcre2_general_context_create(pcre2_alloc, pcre2_dealloc, NULL);
    p->match = p->mem != NULL ? pcre2_match_context_create(p->mem) : NULL;
    if (p->match == NULL) {
        st = TP_FAIL(TP_ERR_NOMEM, "%s: pre_tokenizer", path);
        goto fail;
    }
    pcre2_set_match_limit(p->match, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(p->match, MATCH_HEAP_KIB);
    if (!tp_json_is_null(json))
        TP_TRY_GOTO(st, add_step(p, json, path), fail);
    if (!p->byte_level) {
        st = TP_FAIL(TP_ERR_UNSUPPORTED,
                     "%s: the pre_tokenizer has no ByteLevel step; this build reads byte-level BPE "
                     "tokenizers only (Qwen2, Llama-3, GPT-2 kinds)",
                     path);
        goto fail;
    }
    *out = p;
    return TP_OK;
fail:
    rt_pretok_destroy(p);
    return st;
}

/* ---- running ---- */

static int64_t cpu_ns(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * TP_NS_PER_S + t.tv_nsec;
}

tp_status rt_pretok_run_create(rt_pretok_run **out, const rt_pretok *p, size_t n_text)
{
    rt_pretok_run *run = tp_calloc(1, sizeof *run);
    int64_t budget = RUN_NS + (int64_t)n_text * RUN_NS_PER_BYTE;

    if (run == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "tokenize %zu bytes", n_text);
    run->p = p;
    tp_buf_init(&run->shown, SIZE_MAX - 1);
    tp_buf_init(&run->spaced[0], SIZE_MAX - 1);
    tp_buf_init(&run->spaced[1], SIZE_MAX - 1);
    run->wall_end = tp_now_ns() + budget;
    run->cpu_end = cpu_ns() + budget;
    run->result = pcre2_match_data_create(1, p->mem);
    if (run->result == NULL) {
        rt_pretok_run_destroy(run);
        return TP_FAIL(TP_ERR_NOMEM, "tokenize %zu bytes", n_text);
    }
    *out = run;
    return TP_OK;
}

void rt_pretok_run_destroy(rt_pretok_run *run)
{
    if (run == NULL)
        return;
    pcre2_match_data_free(run->result);
    tp_buf_release(&run->shown);
    tp_buf_release(&run->spaced[0]);
    tp_buf_release(&run->spaced[1]);
    tp_free(run);
}

/* Processor time decides, so that a busy machine causes no errors; the cheaper wall clock is asked first. */
static tp_status check_time(rt_pretok_run *run)
{
    if (++run->attempts % CLOCK_EVERY != 0 || tp_now_ns() < run->wall_end ||
        cpu_ns() < run->cpu_end)
        return TP_OK;
    return TP_REJECT(TP_ERR_LIMIT, "a pattern of the pre-tokenizer takes too long on this text");
}

/* Tries a stage's pattern at text position `at`: *end is where the match ends, or NO_MATCH. */
static tp_status match_at(rt_pretok_run *run, const stage *s, const span *text, size_t at,
                          size_t *end)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)text->shown;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;

    TP_TRY(check_time(run));
    if (s->jit)
        rc = pcre2_jit_match(s->code, subject, text->n, at, 0, run->result, run->p->match);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(s->code, subject, text->n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         run->result, run->p->match);
    if (rc >= 0) {
        *end = pcre2_get_ovector_pointer(run->result)[1];
        return TP_OK;
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
        *end = NO_MATCH;
        return TP_OK;
    }
    if (rc == PCRE2_ERROR_NOMEMORY)
        return TP_FAIL(TP_ERR_NOMEM, "tokenize %zu bytes", text->n);
    return TP_REJECT(TP_ERR_LIMIT,
                     "a pattern of the pre-tokenizer needs too many steps on this "
                     "text (PCRE2 error %d)",
                     rc);
}

static tp_status run_stage(rt_pretok_run *run, int k, span s);

static span cut(const span *s, size_t start, size_t end)
{
    return (span){s->text + start, s->shown + start, end - start};
}

static tp_status release_held(rt_pretok_run *run, int k, const span *s, const joiner *j)
{
    return j->held ? run_stage(run, k + 1, cut(s, j->start, j->end)) : TP_OK;
}

/* Hands on [start, end), or joins it with its neighbours, as the behavior of stage k wants. */
static tp_status put_span(rt_pretok_run *run, int k, const span *s, joiner *j, const joiner *next)
{
    const stage *stage_k = &run->p->stages[k];
    bool match = next->last_match != stage_k->invert, joined = false;

    switch (stage_k->how) {
    case ISOLATED: return run_stage(run, k + 1, cut(s, next->start, next->end));
    case REMOVED: return match ? TP_OK : run_stage(run, k + 1, cut(s, next->start, next->end));
    case CONTIGUOUS: joined = match == j->last_match; break;
    case MERGED_WITH_PREVIOUS: joined = match && !j->last_match; break;
    case MERGED_WITH_NEXT: joined = !match && j->last_match; break;
    }
    j->last_match = match;
    if (joined && j->held) {
        j->end = next->end;
        return TP_OK;
    }
    TP_TRY(release_held(run, k, s, j));
    j->start = next->start;
    j->end = next->end;
    j->held = true;
    return TP_OK;
}

static size_t char_len(const span *s, size_t at)
{
    uint32_t cp = 0;
    int len = tp_utf8_decode(s->shown + at, s->n - at, &cp);

    return len > 0 ? (size_t)len : 1;
}

/* Matches cover the text from the left; an empty one cuts, but not right behind another match. */
static tp_status split_stage(rt_pretok_run *run, int k, const span *s)
{
    const stage *stage_k = &run->p->stages[k];
    joiner j = {0};
    size_t done = 0, last_end = NO_MATCH;

    for (size_t at = 0; at < s->n;) {
        size_t end = NO_MATCH;

        TP_TRY(match_at(run, stage_k, s, at, &end));
        if (end == NO_MATCH || (end == at && last_end == at)) {
            at += char_len(s, at);
            continue;
        }
        if (done < at)
            TP_TRY(put_span(run, k, s, &j, &(joiner){.start = done, .end = at}));
        TP_TRY(put_span(run, k, s, &j, &(joiner){.start = at, .end = end, .last_match = true}));
        done = last_end = at = end;
    }
    if (done < s->n)
        TP_TRY(put_span(run, k, s, &j, &(joiner){.start = done, .end = s->n}));
    return release_held(run, k, s, &j);
}

/* The piece with a space in front.  Only one such stage exists, so its two buffers are free here. */
static tp_status space_stage(rt_pretok_run *run, int k, const span *s)
{
    const char *parts[2] = {s->text, s->shown};

    if (s->text[0] == ' ')
        return run_stage(run, k + 1, *s);
    for (int i = 0; i < 2; i++) {
        tp_buf_reset(&run->spaced[i]);
        tp_buf_putc(&run->spaced[i], ' ');
        tp_buf_put(&run->spaced[i], parts[i], s->n);
        if (run->spaced[i].failed)
            return TP_FAIL(TP_ERR_NOMEM, "tokenize %zu bytes", s->n);
    }
    return run_stage(run, k + 1, (span){run->spaced[0].data, run->spaced[1].data, s->n + 1});
}

/* Recursion is as deep as the pipeline is long. */
static tp_status run_stage(rt_pretok_run *run, int k, span s) /* NOLINT(misc-no-recursion) */
{
    if (s.n == 0)
        return TP_OK;
    if (k == run->p->n_stages)
        return run->fn(run->ctx, s.text, s.n);
    if (run->p->stages[k].code == NULL)
        return space_stage(run, k, &s);
    return split_stage(run, k, &s);
}

/* Makes the copy for PCRE2 where a character needs a stand-in. */
static tp_status make_shown(rt_pretok_run *run, const char *text, size_t n, const char **out)
{
    bool copied = false;

    for (size_t i = 0; i < n;) {
        uint32_t cp = 0, shown;
        size_t len;

        if ((unsigned char)text[i] < 0xe0) { /* below U+0800 nothing differs */
            i++;
            continue;
        }
        len = (size_t)tp_utf8_decode(text + i, n - i, &cp);
        shown = rt_unicode_shown(cp);
        if (shown != cp) {
            if (!copied) {
                tp_buf_reset(&run->shown);
                tp_buf_put(&run->shown, text, n);
                if (run->shown.failed)
                    return TP_FAIL(TP_ERR_NOMEM, "tokenize %zu bytes", n);
                copied = true;
            }
            (void)tp_utf8_encode(shown, run->shown.data + i);
        }
        i += len;
    }
    *out = copied ? run->shown.data : text;
    return TP_OK;
}

tp_status rt_pretok_split(rt_pretok_run *run, const char *text, size_t n, rt_piece_fn fn, void *ctx)
{
    span s = {.text = text, .n = n};

    TP_TRY(make_shown(run, text, n, &s.shown));
    run->fn = fn;
    run->ctx = ctx;
    return run_stage(run, 0, s);
}
