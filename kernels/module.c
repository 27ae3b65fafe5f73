/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - opening the shared libraries of kernels/cuda.
 *
 * A module stays open until the process ends: CUDA does not survive being unloaded, and nothing is gained by it.
 */
#include "kernels/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define N_MODULES 2

typedef tp_status (*list_fn)(kern_device_info *out, int cap, int *n);

typedef struct module {
    const char *name;
    const kern_ops *ops; /* NULL until opened */
    const void *comm;    /* may be NULL: a module without reducers */
    list_fn list;
} module;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static module g_modules[N_MODULES] = {{.name = "cuda"}, {.name = "emu"}}; /* guarded by g_lock */
static char g_extra_dir[PATH_MAX];                                        /* guarded by g_lock */

void kern_module_search(const char *dir)
{
    (void)pthread_mutex_lock(&g_lock);
    (void)snprintf(g_extra_dir, sizeof g_extra_dir, "%s", dir);
    (void)pthread_mutex_unlock(&g_lock);
}

/* The folder of the running program, without a slash at the end; "." when the system does not say. */
static void program_dir(char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    char *slash;

    out[n > 0 ? n : 0] = '\0';
    slash = strrchr(out, '/');
    if (slash != NULL)
        *slash = '\0';
    else
        (void)snprintf(out, PATH_MAX, ".");
}

static bool is_there(char out[PATH_MAX], const char *dir, const char *below, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s%s/libtpserve_%s.so", dir, below, name);

    return n > 0 && n < PATH_MAX && access(out, R_OK) == 0;
}

/* First existing file of the places where a module may lie. */
static tp_status find_file(const char *name, char out[PATH_MAX])
{
    char dir[PATH_MAX];

    program_dir(dir);
    if ((g_extra_dir[0] != '\0' && is_there(out, g_extra_dir, "", name)) ||
        is_there(out, dir, "", name) || is_there(out, dir, "/../lib/tpserve", name))
        return TP_OK;
    return TP_REJECT(TP_ERR_NOT_FOUND,
                     "no libtpserve_%s.so in %s or %s/../lib/tpserve: this build has no \"%s\" "
                     "device; build where the CUDA toolkit is, or choose another --device",
                     name, dir, dir, name);
}

/* dlsym() yields an object pointer; functions have the same size wherever dlsym() exists. */
static void find_function(void *handle, const char *symbol, void *fn, size_t bytes)
{
    void *p = dlsym(handle, symbol);

    memcpy(fn, &p, bytes);
}

static tp_status open_module(module *m)
{
    const kern_ops *(*get_ops)(void);
    const void *(*get_reducers)(void);
    list_fn list;
    char path[PATH_MAX];
    void *handle;

    TP_TRY(find_file(m->name, path));
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return TP_REJECT(TP_ERR_DEVICE, "%s cannot be loaded: %s", path, dlerror());
    find_function(handle, "kern_module_ops", &get_ops, sizeof get_ops);
    find_function(handle, "kern_module_list", &list, sizeof list);
    find_function(handle, "comm_module_reducers", &get_reducers, sizeof get_reducers);
    if (get_ops == NULL || list == NULL || get_ops()->abi != KERN_ABI) {
        tp_status st = TP_REJECT(TP_ERR_UNSUPPORTED,
                                 "%s belongs to another version of tpserve (its interface is %u, "
                                 "expected %d): install both from one build",
                                 path, get_ops != NULL ? get_ops()->abi : 0u, KERN_ABI);

        (void)dlclose(handle);
        return st;
    }
    m->comm = get_reducers != NULL ? get_reducers() : NULL;
    m->list = list;
    m->ops = get_ops();
    return TP_OK;
}

static tp_status find_module(const char *name, module *out)
{
    tp_status st =
        TP_REJECT(TP_ERR_NOT_FOUND, "no module is called \"%s\"; cuda and emu are", name);

    (void)pthread_mutex_lock(&g_lock);
    for (int i = 0; i < N_MODULES; i++) {
        module *m = &g_modules[i];

        if (strcmp(m->name, name) != 0)
            continue;
        st = m->ops != NULL ? TP_OK : open_module(m);
        if (st == TP_OK)
            *out = *m;
    }
    (void)pthread_mutex_unlock(&g_lock);
    return st;
}

tp_status kern_module_open(const char *name, const kern_ops **ops, const void **comm)
{
    module m;

    TP_TRY(find_module(name, &m));
    *ops = m.ops;
    if (comm != NULL)
        *comm = m.comm;
    return TP_OK;
}

tp_status kern_module_devices(const char *name, kern_device_info *out, int cap, int *n)
{
    module m;

    TP_TRY(find_module(name, &m));
    return m.list(out, cap, n);
}
