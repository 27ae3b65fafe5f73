/* SPDX-License-Identifier: Apache-2.0 */
/* nccl_load.c - looks NCCL up once. */
#include "comm/nccl/nccl_load.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libnccl.so.2"

static comm_nccl_lib g_lib;
static char g_why[300]; /* it is not to be had; "": it is */
static pthread_once_t g_once = PTHREAD_ONCE_INIT;

static bool find(void *library, const char *name, void *fn, size_t bytes)
{
    void *p = dlsym(library, name);

    memcpy(fn, &p, bytes);
    return p != NULL;
}

static void find_all(void *library)
{
    int version = 0;

#define FIND_NEEDED(name)                                                                          \
    if (!find(library, "nccl" #name, &g_lib.name, sizeof g_lib.name)) {                            \
        (void)snprintf(g_why, sizeof g_why,                                                        \
                       "this " LIBRARY " has no nccl" #name ": NCCL 2.18 or later is needed");     \
        return;                                                                                    \
    }
    COMM_NCCL_NEEDED(FIND_NEEDED)
#undef FIND_NEEDED
    g_lib.has_windows = COMM_NCCL_HAVE_WINDOWS && g_lib.GetVersion(&version) == ncclSuccess &&
                        version >= NCCL_VERSION(2, 27, 3);
#define FIND_OPTIONAL(name)                                                                        \
    g_lib.has_windows &= find(library, "nccl" #name, &g_lib.name, sizeof g_lib.name);
    COMM_NCCL_OPTIONAL(FIND_OPTIONAL)
#undef FIND_OPTIONAL
}

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        (void)snprintf(g_why, sizeof g_why, "%s", dlerror());
    else
        find_all(library);
}

tp_status comm_nccl_load(const comm_nccl_lib **out)
{
    (void)pthread_once(&g_once, load);
    if (g_why[0] != '\0')
        return TP_REJECT(TP_ERR_UNSUPPORTED, "%s", g_why);
    *out = &g_lib;
    return TP_OK;
}
