/* SPDX-License-Identifier: Apache-2.0 */
/* model_files.c - see model_files.h. */
#include "tests/unit/model/model_files.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"

static char g_dir[256];

const char *const mf_dir = g_dir;

int mf_setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    (void)snprintf(g_dir, sizeof g_dir, "%s/tpserve-model-XXXXXX", tmp != NULL ? tmp : "/tmp");
    TP_ASSERT(mkdtemp(g_dir) != NULL);
    return 0;
}

void mf_write(const char *name, const void *data, size_t n)
{
    char path[512];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", g_dir, name);
    f = fopen(path, "wb");
    TP_ASSERT(f != NULL && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

void mf_text(const char *name, const char *text)
{
    mf_write(name, text, strlen(text));
}

void mf_safetensors(const char *name, const char *header, size_t n_data)
{
    size_t len = strlen(header);
    unsigned char *file = tp_calloc(1, 8 + len + n_data);

    TP_ASSERT(file != NULL);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)len >> (8 * i));
    memcpy(file + 8, header, len);
    mf_write(name, file, 8 + len + n_data);
    tp_free(file);
}

void mf_remove(const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", g_dir, name);
    (void)unlink(path);
}

int mf_teardown(void **state)
{
    DIR *d = opendir(g_dir);

    (void)state;
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        if (e->d_name[0] != '.')
            mf_remove(e->d_name);
    }
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(g_dir);
    return 0;
}
