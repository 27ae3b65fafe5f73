/* SPDX-License-Identifier: Apache-2.0 */
/* replay.c - main of a fuzz target without a fuzzer: runs every file of the folders it is given, and prints what took longest.
 *
 * usage: replay_X FOLDER|FILE...   A folder that is not there holds no inputs; no input at all is a failure.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_BYTES_MAX (64u << 20)

static char g_slowest[512];
static int64_t g_slowest_ns;
static int g_n_run;

static bool run_file(const char *path)
{
    int64_t start;
    uint8_t *exact;
    tp_buf text;

    if (tp_buf_read_file(&text, path, INPUT_BYTES_MAX) != TP_OK)
        return false;
    exact = tp_malloc(text.len); /* no byte behind it: a sanitizer sees who reads too far */
    if (exact == NULL)
        return false;
    memcpy(exact, tp_buf_str(&text), text.len);
    (void)fprintf(stderr, "%s\n", path); /* the last line names the input that failed */
    start = tp_now_ns();
    (void)LLVMFuzzerTestOneInput(exact, text.len);
    start = tp_now_ns() - start;
    if (start > g_slowest_ns) {
        g_slowest_ns = start;
        (void)snprintf(g_slowest, sizeof g_slowest, "%s", path);
    }
    g_n_run++;
    tp_free(exact);
    tp_buf_release(&text);
    return true;
}

static bool run_folder(const char *folder)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, NULL, alphasort);
    bool ok = true;

    for (int i = 0; i < n; i++) {
        char path[512];
        struct stat info;

        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (ok && stat(path, &info) == 0 && S_ISREG(info.st_mode))
            ok = run_file(path);
        tp_free(names[i]);
    }
    tp_free(names);
    return ok;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat info;

        if (stat(argv[i], &info) != 0)
            continue;
        if (!(S_ISDIR(info.st_mode) ? run_folder(argv[i]) : run_file(argv[i])))
            return 1;
    }
    (void)printf("%d inputs; slowest %.1f ms: %s\n", g_n_run, (double)g_slowest_ns / 1e6,
                 g_slowest);
    return g_n_run > 0 ? 0 : 1;
}
