/* SPDX-License-Identifier: Apache-2.0 */
/* request.h - a request inside the runtime: its copies of the caller's data, its choices, and its outbox.
 *
 * Shared by two sides.  The reader (an API thread) owns the handle; the scheduler (under the plan lock) the choices.  They meet
 * in the outbox, a byte ring of records under the request's lock, and in `cancelled`.  Each side holds one reference;
 * the last one frees.  The scheduler keeps its own until no step under way names a choice of the request.
 */
#ifndef RT_REQUEST_H
#define RT_REQUEST_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "runtime/engine.h"
#include "runtime/model/model.h"
#include "runtime/sched/sched.h"

/* One choice: its sequence, and how its tokens become text. */
typedef struct rt_choice {
    rt_seq seq;
    rt_request *request;
    int index;
    rt_detok detok;
    rt_ngram text; /* where speculation guesses from */
    char *held;    /* in the request's arena; text not yet released: may begin a stop string */
    size_t held_len;
    int32_t n_generated;
    int32_t next_prompt; /* next prompt token whose logprob goes out */
    bool finished;
    int64_t started_ns, first_ns, last_ns; /* first scheduled, first token, newest token */
} rt_choice;

struct rt_request {
    uint32_t magic;
    atomic_int refs;
    atomic_bool cancelled;
    tp_arena arena; /* owned; the copies of the caller's data, choices, scratch */
    rt_engine *engine;
    rt_request *inbox_next; /* list links, under the engine's inbox lock */
    rt_request *cancel_next;
    rt_request *open_prev, *open_next; /* scheduler: requests in progress */

    rt_request_desc desc; /* pointers are to our copies */
    rt_choice *choices;   /* [desc.n] */
    int32_t blocks_max;   /* of a choice */
    int n_open;           /* choices not finished; this and what follows: scheduler */
    int n_under_way;      /* times that the steps under way name a choice */
    size_t promised;      /* most bytes of the records that their results will become */
    int64_t starved_ns;   /* held back for want of room since; 0 = not */
    int32_t forbidden[RT_STOP_IDS_MAX + RT_EOS_MAX]; /* ids masked below min_tokens */
    int64_t submitted_ns;
    size_t held_max;
    char *scratch;     /* [scratch_max] scheduler: text of one push */
    size_t record_max; /* largest record of the outbox */

    pthread_mutex_t lock; /* what follows */
    uint8_t *ring;        /* [ring_bytes] a power of two, room for eight records per choice */
    size_t ring_bytes;
    uint64_t head, tail; /* bytes ever written, ever read */
    bool armed;          /* the reader found the box empty and waits for notify */
    int n_delivered;     /* FINISH events read */
    uint8_t *record;     /* [record_max] the event that the reader looks at */
    atomic_size_t used;  /* head - tail, for the scheduler's glance without the lock */
};

/* Copies everything in d; `held_max` and text sizes follow from the tokenizer.  One reference for the reader. */
TP_MUST_USE tp_status rt_request_create(rt_request **out, rt_engine *e, const rt_tokenizer *t,
                                        const rt_request_desc *d, int32_t blocks_max);
/* Gives the choices their part in the prefix cache.  Any thread, before the scheduler sees the request. */
TP_MUST_USE tp_status rt_request_name_blocks(rt_request *r, const rt_block_namer *n);
/* Lets speculation look their texts up, of n_total tokens at most.  As above. */
TP_MUST_USE tp_status rt_request_index_text(rt_request *r, const rt_ngram_options *o,
                                            int32_t n_total);
void rt_request_ref(rt_request *r);
void rt_request_unref(rt_request *r); /* frees at zero */

/* Scheduler.  Bytes that can be pushed now. */
size_t rt_request_room(const rt_request *r);
/* Largest record of one RT_EVENT_PROMPT. */
size_t rt_request_prompt_record_bytes(void);
/* Appends an event; room was checked before.  Notifies the reader by the rules of engine.h. */
void rt_request_push(rt_request *r, const rt_event *ev);

#endif
