/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.c - see safetensors.h.
 *
 * A file is: u64 N, little-endian; N bytes of JSON, an object; then the data, to the end of the file.
 *   "name": {"dtype": "BF16", "shape": [..], "data_offsets": [begin, end]}     offsets count from byte 8 + N
 *   "__metadata__": {string: string}                                            ignored
 * The ranges must tile the data: the first begins at 0, each begins where one ended, the last ends at the end of the
 * file; and each has as many bytes as dtype and shape say.  That finds truncated downloads before anything is read.
 * A checkpoint of several files has an index: {"weight_map": {"tensor": "file"}}; files not named there are not
 * opened, and tensors not named there do not count.
 */
#include "runtime/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

#define HEADER_BYTES_MAX UINT64_C(100000000) /* as the reference reader */
#define INDEX_BYTES_MAX  (256u << 20)
#define TENSORS_MAX      (1u << 22)
#define FILES_MAX        4096
#define SINGLE_FILE      "model.safetensors"
#define INDEX_FILE       "model.safetensors.index.json"

/* Everything that can be wrong with one file is said in one shape. */
#define DAMAGED(file, fmt, ...)                                                                    \
    TP_REJECT(TP_ERR_FORMAT, "%s/%s: damaged: " fmt, (file)->dir, (file)->name, __VA_ARGS__)

/* A file while its header is read. */
typedef struct header {
    const char *dir, *name; /* borrowed */
    uint32_t file;          /* index in rt_st.files */
    uint64_t data_start, data_bytes;
    size_t first_tensor; /* tensors of this file are [first_tensor, n_tensors) */
} header;

static const struct {
    const char *name;
    int bits;
    rt_st_dtype dtype;
} dtypes[] = {
    {"BF16", 16, RT_ST_BF16},        {"F16", 16, RT_ST_F16},          {"F32", 32, RT_ST_F32},
    {"BOOL", 8, RT_ST_OTHER},        {"U8", 8, RT_ST_OTHER},          {"I8", 8, RT_ST_OTHER},
    {"F8_E4M3", 8, RT_ST_OTHER},     {"F8_E5M2", 8, RT_ST_OTHER},     {"F8_E8M0", 8, RT_ST_OTHER},
    {"F8_E4M3FNUZ", 8, RT_ST_OTHER}, {"F8_E5M2FNUZ", 8, RT_ST_OTHER}, {"I16", 16, RT_ST_OTHER},
    {"U16", 16, RT_ST_OTHER},        {"I32", 32, RT_ST_OTHER},        {"U32", 32, RT_ST_OTHER},
    {"I64", 64, RT_ST_OTHER},        {"U64", 64, RT_ST_OTHER},        {"F64", 64, RT_ST_OTHER},
    {"C64", 64, RT_ST_OTHER},        {"F4", 4, RT_ST_OTHER},          {"F6_E2M3", 6, RT_ST_OTHER},
    {"F6_E3M2", 6, RT_ST_OTHER},
};

/* ---- the table of tensors ---- */

static uint32_t *slot_of(const rt_st *st, const char *name)
{
    size_t mask = st->n_slots - 1, i = (size_t)tp_hash_fnv(name, strlen(name)) & mask;

    while (st->slots[i] != 0 && strcmp(st->tensors[st->slots[i] - 1].name, name) != 0)
        i = (i + 1) & mask;
    return &st->slots[i];
}

const rt_st_tensor *rt_st_find(const rt_st *st, const char *name)
{
    uint32_t slot = st->n_slots != 0 ? *slot_of(st, name) : 0;

    return slot != 0 ? &st->tensors[slot - 1] : NULL;
}

/* Keeps the table at most half full. */
static tp_status grow_slots(rt_st *st)
{
    size_t n = st->n_slots != 0 ? 2 * st->n_slots : 1024;
    uint32_t *slots;

    if (2 * (st->n_tensors + 1) <= st->n_slots)
        return TP_OK;
    slots = tp_calloc(n, sizeof *slots);
    if (slots == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for a table of %zu tensors", n);
    tp_free(st->slots);
    st->slots = slots;
    st->n_slots = n;
    for (size_t i = 0; i < st->n_tensors; i++)
        *slot_of(st, st->tensors[i].name) = (uint32_t)i + 1;
    return TP_OK;
}

static tp_status grow_tensors(rt_st *st)
{
    size_t cap = st->cap_tensors != 0 ? 2 * st->cap_tensors : 512;
    rt_st_tensor *t;

    if (st->n_tensors < st->cap_tensors)
        return TP_OK;
    if (st->n_tensors >= TENSORS_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "%s: more than %u tensors", st->dir, TENSORS_MAX);
    t = tp_realloc(st->tensors, cap * sizeof *t);
    if (t == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for %zu tensors", cap);
    st->tensors = t;
    st->cap_tensors = cap;
    return TP_OK;
}

/* ---- one header ---- */

static tp_status read_dtype(rt_st_tensor *t, const header *h, const tp_json *v, int *bits)
{
    const char *name = tp_json_string(tp_json_get(v, "dtype"));

    if (name == NULL)
        return DAMAGED(h, "tensor %s has no dtype", t->name);
    for (size_t i = 0; i < TP_ARRAY_LEN(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            t->dtype = dtypes[i].dtype;
            t->dtype_name = dtypes[i].name;
            *bits = dtypes[i].bits;
            return TP_OK;
        }
    }
    return DAMAGED(h, "tensor %s has unknown dtype \"%.32s\"", t->name, name);
}

/* Dimensions, and the bytes that they and the dtype ask for. */
static tp_status read_shape(rt_st_tensor *t, const header *h, const tp_json *v, int bits,
                            uint64_t *bytes)
{
    const tp_json *shape = tp_json_get(v, "shape");
    uint64_t n = (uint64_t)bits;

    if (shape == NULL || tp_json_kind(shape) != TP_JSON_ARRAY)
        return DAMAGED(h, "tensor %s has no shape", t->name);
    TP_JSON_EACH(item, shape)
    {
        int64_t dim;

        if (tp_json_kind(item) != TP_JSON_NUMBER || !tp_json_int64(item, &dim) || dim < 0)
            return DAMAGED(h, "tensor %s: a dimension is not a whole number", t->name);
        if (t->n_dims == RT_ST_DIMS_MAX)
            return DAMAGED(h, "tensor %s has more than %d dimensions", t->name, RT_ST_DIMS_MAX);
        if (__builtin_mul_overflow(n, (uint64_t)dim, &n))
            return DAMAGED(h, "tensor %s: its shape overflows", t->name);
        t->shape[t->n_dims++] = dim;
    }
    if (n % 8 != 0)
        return DAMAGED(h, "tensor %s ends inside a byte", t->name);
    *bytes = n / 8;
    return TP_OK;
}

static tp_status read_offsets(rt_st_tensor *t, const header *h, const tp_json *v, uint64_t bytes)
{
    const tp_json *pair = tp_json_get(v, "data_offsets");
    const tp_json *first = tp_json_first(pair), *second = tp_json_next(first);
    int64_t begin, end;

    if (pair == NULL || tp_json_kind(pair) != TP_JSON_ARRAY || tp_json_count(pair) != 2 ||
        tp_json_kind(first) != TP_JSON_NUMBER || tp_json_kind(second) != TP_JSON_NUMBER ||
        !tp_json_int64(first, &begin) || !tp_json_int64(second, &end) || begin < 0 || end < begin)
        return DAMAGED(h, "tensor %s: data_offsets are not [begin, end]", t->name);
    if ((uint64_t)end > h->data_bytes)
        return DAMAGED(h,
                       "tensor %s ends at byte %" PRId64 " of %" PRIu64
                       " data bytes; is the download"
                       " complete?",
                       t->name, end, h->data_bytes);
    if ((uint64_t)(end - begin) != bytes)
        return DAMAGED(
            h, "tensor %s: data_offsets span %" PRId64 " bytes, dtype and shape need %" PRIu64,
            t->name, end - begin, bytes);
    t->offset = h->data_start + (uint64_t)begin;
    t->bytes = bytes;
    return TP_OK;
}

static tp_status read_metadata(const header *h, const tp_json *v)
{
    if (tp_json_kind(v) != TP_JSON_OBJECT)
        return DAMAGED(h, "__metadata__ is %s, expected an object",
                       tp_json_kind_name(tp_json_kind(v)));
    TP_JSON_EACH(item, v)
    {
        if (tp_json_kind(item) != TP_JSON_STRING)
            return DAMAGED(h, "__metadata__ \"%.64s\" is not a string", tp_json_key(item));
    }
    return TP_OK;
}

static tp_status read_entry(rt_st *st, const header *h, const tp_json *v)
{
    const char *key = tp_json_key(v);
    rt_st_tensor t = {.file = h->file};
    uint64_t bytes = 0;
    int bits = 0;

    if (strcmp(key, "__metadata__") == 0)
        return read_metadata(h, v);
    t.name = tp_arena_strndup(&st->names, key, strlen(key));
    if (t.name == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for tensor names");
    if (tp_json_kind(v) != TP_JSON_OBJECT)
        return DAMAGED(h, "tensor %s is %s, expected an object", t.name,
                       tp_json_kind_name(tp_json_kind(v)));
    TP_TRY(read_dtype(&t, h, v, &bits));
    TP_TRY(read_shape(&t, h, v, bits, &bytes));
    TP_TRY(read_offsets(&t, h, v, bytes));
    TP_TRY(grow_tensors(st));
    st->tensors[st->n_tensors++] = t;
    return TP_OK;
}

static int by_offset(const void *a, const void *b)
{
    const rt_st_tensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* No hole, no overlap, nothing left at the end. */
static tp_status check_tiling(rt_st *st, const header *h)
{
    uint64_t at = h->data_start;

    if (st->n_tensors > h->first_tensor)
        qsort(st->tensors + h->first_tensor, st->n_tensors - h->first_tensor, sizeof *st->tensors,
              by_offset);
    for (size_t i = h->first_tensor; i < st->n_tensors; i++) {
        const rt_st_tensor *t = &st->tensors[i];

        if (t->offset != at)
            return DAMAGED(h,
                           "tensor %s begins at data byte %" PRIu64 ", expected %" PRIu64 " (%s)",
                           t->name, t->offset - h->data_start, at - h->data_start,
                           t->offset > at ? "a hole" : "an overlap");
        at += t->bytes;
    }
    if (at != h->data_start + h->data_bytes)
        return DAMAGED(h, "%" PRIu64 " bytes follow the last tensor",
                       h->data_start + h->data_bytes - at);
    return TP_OK;
}

static tp_status parse_header(rt_st *st, header *h, const char *text, size_t len)
{
    tp_json *root;
    tp_status status;

    if (len == 0 || text[0] != '{')
        return DAMAGED(h, "the header is not a JSON object (%zu bytes)", len);
    /* Repeated names are found by the table, in linear time. */
    status = tp_json_parse(&root, text, len,
                           &(tp_json_limits){.depth_max = 8, .allow_duplicate_keys = true});
    if (status == TP_ERR_NOMEM)
        return status;
    if (status != TP_OK)
        return DAMAGED(h, "the header cannot be read: %.200s", tp_last_error());
    TP_JSON_EACH(item, root)
    {
        status = read_entry(st, h, item);
        if (status != TP_OK)
            break;
    }
    tp_json_free(root);
    TP_TRY(status);
    return check_tiling(st, h);
}

static tp_status load_header(rt_st *st, header *h)
{
    uint64_t size = st->files[h->file].bytes, len;
    unsigned char prefix[8];
    char *text;
    tp_status status;

    if (size < sizeof prefix)
        return DAMAGED(h, "%" PRIu64 " bytes are too few for a safetensors file", size);
    TP_TRY(rt_st_read(st, h->file, 0, prefix, sizeof prefix));
    len = 0;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | prefix[i];
    if (len > HEADER_BYTES_MAX || len > size - sizeof prefix)
        return DAMAGED(
            h, "header length is %" PRIu64 ", the file has %" PRIu64 " bytes (limit %" PRIu64 ")",
            len, size, HEADER_BYTES_MAX);
    h->data_start = sizeof prefix + len;
    h->data_bytes = size - h->data_start;
    h->first_tensor = st->n_tensors;
    text = tp_malloc((size_t)len + 1);
    if (text == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "%s/%s: no memory for a header of %" PRIu64 " bytes", h->dir,
                         h->name, len);
    status = rt_st_read(st, h->file, sizeof prefix, text, (size_t)len);
    if (status == TP_OK)
        status = parse_header(st, h, text, (size_t)len);
    tp_free(text);
    return status;
}

/* ---- files ---- */

static tp_status add_file(rt_st *st, const char *name, uint32_t *out)
{
    rt_st_file f = {.fd = -1};
    struct stat info;
    char path[4096];

    if (st->n_files == st->cap_files) {
        int cap = st->cap_files != 0 ? 2 * st->cap_files : 8;
        rt_st_file *files = tp_realloc(st->files, (size_t)cap * sizeof *files);

        if (files == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for %d files", cap);
        st->files = files;
        st->cap_files = cap;
    }
    f.name = tp_arena_strndup(&st->names, name, strlen(name));
    if (f.name == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for file names");
    (void)snprintf(path, sizeof path, "%s/%s", st->dir, name);
    f.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f.fd < 0)
        return TP_REJECT(errno == ENOENT ? TP_ERR_NOT_FOUND : TP_ERR_IO, "open %s: %m", path);
    if (fstat(f.fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(f.fd);
        return TP_REJECT(TP_ERR_IO, "%s: not a regular file", path);
    }
    f.bytes = (uint64_t)info.st_size;
    *out = (uint32_t)st->n_files;
    st->files[st->n_files++] = f;
    return TP_OK;
}

tp_status rt_st_read(const rt_st *st, uint32_t file, uint64_t offset, void *buf, size_t bytes)
{
    const rt_st_file *f = &st->files[file];
    size_t done = 0;

    if (tp_fault_hit("load.read"))
        return TP_REJECT(TP_ERR_IO, "read %s/%s at byte %" PRIu64 ": %s", st->dir, f->name, offset,
                         strerror(EIO));
    while (done < bytes) {
        ssize_t n = pread(f->fd, (char *)buf + done, bytes - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n > 1 && tp_fault_hit("load.short"))
            n = 1;
        if (n > 0 && tp_fault_hit("load.shrink"))
            n = 0;
        if (n < 0)
            return TP_REJECT(TP_ERR_IO, "read %s/%s at byte %" PRIu64 ": %m", st->dir, f->name,
                             offset + done);
        if (n == 0)
            return TP_REJECT(TP_ERR_IO,
                             "%s/%s became shorter while it was read (byte %" PRIu64 " of %" PRIu64
                             ")",
                             st->dir, f->name, offset + done, f->bytes);
        done += (size_t)n;
    }
    return TP_OK;
}

/* File systems that cannot tell (network, FUSE) answer EOPNOTSUPP: no. */
bool rt_st_cached(const rt_st *st, uint32_t file, uint64_t offset)
{
    char byte;
    struct iovec to = {.iov_base = &byte, .iov_len = 1};

    return preadv2(st->files[file].fd, &to, 1, (off_t)offset, RWF_NOWAIT) == 1;
}

void rt_st_fetch(const rt_st *st, uint32_t file, uint64_t offset, uint64_t bytes)
{
    (void)posix_fadvise(st->files[file].fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
}

/* Takes every tensor of the file. */
static tp_status open_single(rt_st *st)
{
    header h = {.dir = st->dir, .name = SINGLE_FILE};
    size_t n;

    TP_TRY(add_file(st, SINGLE_FILE, &h.file));
    TP_TRY(load_header(st, &h));
    n = st->n_tensors;
    for (st->n_tensors = 0; st->n_tensors < n; st->n_tensors++) {
        const rt_st_tensor *t = &st->tensors[st->n_tensors];
        uint32_t *slot;

        TP_TRY(grow_slots(st));
        slot = slot_of(st, t->name);
        if (*slot != 0)
            return DAMAGED(&h, "tensor %s appears twice", t->name);
        *slot = (uint32_t)st->n_tensors + 1;
    }
    return TP_OK;
}

/* ---- several files ---- */

static bool plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL && strlen(name) < 256;
}

/* The number of the file `name`, opened when it is new.  Entries of one file mostly follow each other. */
static tp_status file_number(rt_st *st, const char *name, uint32_t *number)
{
    if ((int)*number < st->n_files && strcmp(st->files[*number].name, name) == 0)
        return TP_OK;
    for (int i = 0; i < st->n_files; i++) {
        if (strcmp(st->files[i].name, name) == 0) {
            *number = (uint32_t)i;
            return TP_OK;
        }
    }
    if (!plain_name(name))
        return TP_REJECT(TP_ERR_FORMAT,
                         "%s/" INDEX_FILE ": file name \"%.64s\" is not a plain name inside"
                         " the model directory",
                         st->dir, name);
    if (st->n_files == FILES_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "%s/" INDEX_FILE ": more than %d files", st->dir, FILES_MAX);
    return add_file(st, name, number);
}

/* Enters every name of the index with its file; the rest of the entry comes from the file's header. */
static tp_status expect_tensors(rt_st *st, const tp_json *map)
{
    uint32_t number = 0;

    TP_JSON_EACH(item, map)
    {
        const char *file = tp_json_string(item), *key = tp_json_key(item);
        rt_st_tensor t = {0};
        uint32_t *slot;

        if (file == NULL)
            return TP_REJECT(TP_ERR_FORMAT, "%s/" INDEX_FILE ": tensor %.200s has no file name",
                             st->dir, key);
        TP_TRY(file_number(st, file, &number));
        t.file = number;
        t.name = tp_arena_strndup(&st->names, key, strlen(key));
        if (t.name == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for tensor names");
        TP_TRY(grow_tensors(st));
        TP_TRY(grow_slots(st));
        slot = slot_of(st, t.name);
        if (*slot != 0)
            return TP_REJECT(TP_ERR_FORMAT, "%s/" INDEX_FILE ": tensor %s appears twice", st->dir,
                             t.name);
        st->tensors[st->n_tensors++] = t;
        *slot = (uint32_t)st->n_tensors;
    }
    return TP_OK;
}

/* Moves the tensors of one file, which stand at the end of the table, to the entries that expect them. */
static tp_status fill_expected(rt_st *st, const header *h)
{
    size_t n = st->n_tensors;

    st->n_tensors = h->first_tensor;
    for (size_t i = h->first_tensor; i < n; i++) {
        const rt_st_tensor *t = &st->tensors[i];
        uint32_t slot = *slot_of(st, t->name);
        rt_st_tensor *expected = slot != 0 ? &st->tensors[slot - 1] : NULL;

        if (expected == NULL || expected->file != h->file)
            continue; /* a left-over: the index maps this name elsewhere or nowhere */
        if (expected->dtype_name != NULL)
            return DAMAGED(h, "tensor %s appears twice", t->name);
        *expected = *t;
    }
    return TP_OK;
}

static tp_status open_sharded(rt_st *st, const tp_json *index)
{
    const tp_json *map = tp_json_get(index, "weight_map");

    if (map == NULL || tp_json_kind(map) != TP_JSON_OBJECT)
        return TP_REJECT(TP_ERR_FORMAT, "%s/" INDEX_FILE ": has no object \"weight_map\"", st->dir);
    TP_TRY(expect_tensors(st, map));
    for (int i = 0; i < st->n_files; i++) {
        header h = {.dir = st->dir, .name = st->files[i].name, .file = (uint32_t)i};

        TP_TRY(load_header(st, &h));
        TP_TRY(fill_expected(st, &h));
    }
    for (size_t i = 0; i < st->n_tensors; i++) {
        const rt_st_tensor *t = &st->tensors[i];

        if (t->dtype_name == NULL)
            return TP_REJECT(TP_ERR_FORMAT,
                             "%s/%s: tensor %s is missing, " INDEX_FILE
                             " says that this file holds it",
                             st->dir, st->files[t->file].name, t->name);
    }
    return TP_OK;
}

static tp_status open_any(rt_st *st)
{
    char path[4096];
    tp_json *index;
    tp_buf text;
    tp_status status;

    (void)snprintf(path, sizeof path, "%s/" SINGLE_FILE, st->dir);
    if (access(path, F_OK) == 0)
        return open_single(st);
    (void)snprintf(path, sizeof path, "%s/" INDEX_FILE, st->dir);
    if (access(path, F_OK) != 0)
        return TP_REJECT(TP_ERR_NOT_FOUND,
                         "%s: neither " SINGLE_FILE " nor " INDEX_FILE " is there", st->dir);
    tp_buf_init(&text, INDEX_BYTES_MAX);
    status = tp_buf_read_file(&text, path, INDEX_BYTES_MAX);
    if (status == TP_OK) {
        status = tp_json_parse(&index, tp_buf_str(&text), text.len,
                               &(tp_json_limits){.depth_max = 8, .allow_duplicate_keys = true});
        if (status != TP_OK && status != TP_ERR_NOMEM)
            status = TP_REJECT(TP_ERR_FORMAT, "%s: damaged: %.200s", path, tp_last_error());
    }
    tp_buf_release(&text);
    TP_TRY(status);
    status = open_sharded(st, index);
    tp_json_free(index);
    return status;
}

tp_status rt_st_open(rt_st *out, const char *dir)
{
    rt_st st = {.dir = tp_strdup(dir)};
    tp_status status;

    tp_arena_init(&st.names, 0);
    if (st.dir == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for a directory name");
    status = open_any(&st);
    if (status != TP_OK) {
        rt_st_close(&st);
        return status;
    }
    *out = st;
    return TP_OK;
}

void rt_st_close(rt_st *st)
{
    for (int i = 0; i < st->n_files; i++)
        (void)close(st->files[i].fd);
    tp_free(st->files);
    tp_free(st->tensors);
    tp_free(st->slots);
    tp_free(st->dir);
    tp_arena_release(&st->names);
    memset(st, 0, sizeof *st);
}
