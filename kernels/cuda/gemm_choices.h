/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_choices.h - which algorithm computes products of a shape: a table in memory, and a file between starts.
 *
 * What an algorithm is, only gemm_cublaslt.c knows: here it is 64 bytes.  The table has 4096 entries, found by hash; when
 * it is full the ones that were only guessed go before the ones that were timed, the oldest first.
 *
 * The file, one line each:
 *   tpserve-gemm 1 <what the choices depend on: device, driver, library>
 *   <m> <n> <k> <ldw> <dtype> <out_dtype> <flags> <microseconds> <128 hex digits> <checksum of the line>
 * flags: 1 with a bias, 2 where all rows start on 16 bytes, 4 where the algorithm takes no bias.  It is a hint: another
 * first line, or a line that cannot be read, is passed over.  It is replaced as a whole.
 * Threads: one at a time.
 */
#ifndef KERN_GEMM_CHOICES_H
#define KERN_GEMM_CHOICES_H

#include <stdint.h>

#include "base/status.h"

#define KERN_GEMM_ALGORITHM_BYTES 64
#define KERN_GEMM_DEPENDS_MAX     192

typedef struct kern_gemm_shape {
    int64_t ldw;
    int32_t m, n, k;
    int16_t dtype, out_dtype; /* kern_dtype */
    bool biased, aligned;     /* bias given; all rows start on 16 bytes */
} kern_gemm_shape;

typedef struct kern_gemm_choice {
    kern_gemm_shape shape;
    bool used, tuned;
    bool spread_bias; /* the algorithm takes no bias: it is written first and added to */
    float us;         /* of the tuned one */
    uint64_t age;
    unsigned char algorithm[KERN_GEMM_ALGORITHM_BYTES];
} kern_gemm_choice;

typedef struct kern_gemm_choices kern_gemm_choices;

/* file NULL: none.  What the file holds is there at once. */
TP_MUST_USE tp_status kern_gemm_choices_create(kern_gemm_choices **out, const char *file,
                                               const char *depends_on);
void kern_gemm_choices_destroy(kern_gemm_choices *c);
/* The entry of a shape, or the one to overwrite for it. */
kern_gemm_choice *kern_gemm_choices_place(kern_gemm_choices *c, const kern_gemm_shape *shape);
bool kern_gemm_choice_holds(const kern_gemm_choice *e, const kern_gemm_shape *shape);
void kern_gemm_choices_touch(kern_gemm_choices *c, kern_gemm_choice *e); /* it is the newest now */
/* All tuned ones to the file; failure costs the next start some time, nothing else. */
void kern_gemm_choices_write(const kern_gemm_choices *c);

#endif
