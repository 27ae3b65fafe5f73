/* SPDX-License-Identifier: Apache-2.0 */
/* bind.c - cores by hwloc.
 *
 * mpirun binds small jobs to one core per rank unless told otherwise, which would leave the rest of a big host idle; so
 * "auto" spreads the ranks of a host over all cores that the cgroup allows, whatever the inherited mask says, except
 * under srun, whose binding is the administrator's word.  With more ranks than cores nothing is bound.
 * A rank with a GPU is bound to all cores near it (its NUMA node), which it shares with the ranks of the GPUs beside it:
 * its threads only load weights and feed the device.
 */
#include "launcher/bind.h"

#include <hwloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cores.h"
#include "base/log.h"

/* devices: with the GPUs and where they hang, which takes longer to find out. */
static hwloc_topology_t load_topology(bool devices)
{
    hwloc_topology_t t = NULL;

    if (hwloc_topology_init(&t) != 0)
        return NULL;
    if (devices)
        (void)hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(t) != 0) {
        hwloc_topology_destroy(t);
        return NULL;
    }
    return t;
}

/* Cores that a CPU quota grants; a large number when there is none. */
static int quota_cores(void)
{
    double quota = tp_cores_quota();

    return quota > 0 ? (int)ceil(quota) : 1 << 20;
}

static int count_cores(hwloc_topology_t t)
{
    int cores = t != NULL ? hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE) : 0;

    if (cores <= 0 && t != NULL)
        cores = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    return cores > 0 ? cores : 1;
}

int launch_usable_cores(void)
{
    hwloc_topology_t t = load_topology(false);
    int cores = count_cores(t), quota = quota_cores();

    if (t != NULL)
        hwloc_topology_destroy(t);
    return cores < quota ? cores : quota;
}

/* Cores of the mask that this process inherited. */
static int inherited_cores(hwloc_topology_t t)
{
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    int cores = 1;

    if (set != NULL && hwloc_get_cpubind(t, set, HWLOC_CPUBIND_PROCESS) == 0)
        cores = hwloc_get_nbobjs_inside_cpuset_by_type(t, set, HWLOC_OBJ_CORE);
    hwloc_bitmap_free(set);
    return cores > 0 ? cores : 1;
}

static void bind_range(hwloc_topology_t t, int first, int n)
{
    hwloc_cpuset_t set = hwloc_bitmap_alloc();

    if (set == NULL)
        return;
    for (int i = first; i < first + n; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(t, HWLOC_OBJ_CORE, (unsigned)i);

        if (core != NULL)
            hwloc_bitmap_or(set, set, core->cpuset);
    }
    if (!hwloc_bitmap_iszero(set) && hwloc_set_cpubind(t, set, HWLOC_CPUBIND_PROCESS) != 0)
        tp_warn("launcher", "could not bind to cores %d-%d: running unbound", first, first + n - 1);
    hwloc_bitmap_free(set);
}

static void unbind(hwloc_topology_t t)
{
    hwloc_const_cpuset_t all = hwloc_topology_get_allowed_cpuset(t);

    if (all != NULL && hwloc_set_cpubind(t, all, HWLOC_CPUBIND_PROCESS) != 0)
        tp_debug("launcher", "could not unbind");
}

/* The smallest part of the machine that holds the device; NULL when it is unknown or the whole machine. */
static hwloc_obj_t part_near(hwloc_topology_t t, const char *pci)
{
    hwloc_obj_t dev = hwloc_get_pcidev_by_busidstring(t, pci);
    hwloc_obj_t near = dev != NULL ? hwloc_get_non_io_ancestor_obj(t, dev) : NULL;
    hwloc_const_cpuset_t all = hwloc_topology_get_allowed_cpuset(t);

    if (near == NULL || near->cpuset == NULL || all == NULL ||
        hwloc_bitmap_isincluded(all, near->cpuset) || !hwloc_bitmap_intersects(all, near->cpuset))
        return NULL;
    return near;
}

bool launch_near_device(const char *pci, char *cores, int cap, int *numa)
{
    hwloc_topology_t t = load_topology(true);
    hwloc_obj_t near = t != NULL ? part_near(t, pci) : NULL;
    bool known = near != NULL;

    if (known) {
        hwloc_bitmap_list_snprintf(cores, (size_t)cap, near->cpuset);
        *numa = near->nodeset != NULL && hwloc_bitmap_weight(near->nodeset) == 1
                    ? hwloc_bitmap_first(near->nodeset)
                    : -1;
    }
    if (t != NULL)
        hwloc_topology_destroy(t);
    return known;
}

/* True when the process now runs near its device. */
static bool bind_near(hwloc_topology_t t, const char *pci)
{
    hwloc_obj_t near = *pci != '\0' ? part_near(t, pci) : NULL;

    if (near == NULL)
        return false;
    if (hwloc_set_cpubind(t, near->cpuset, HWLOC_CPUBIND_PROCESS) == 0)
        return true;
    tp_warn("launcher", "could not bind to the cores near GPU %s: running unbound", pci);
    return false;
}

static bool bound_by_slurm(void)
{
    const char *type = getenv("SLURM_CPU_BIND_TYPE");

    return type != NULL && *type != '\0' && strcmp(type, "none") != 0;
}

int launch_bind(const launch_options *opt, const comm_world *world, const char *pci)
{
    hwloc_topology_t t = load_topology(*pci != '\0');
    int cores = count_cores(t), quota = quota_cores(), share, threads;
    bool keep =
        strcmp(opt->bind, "keep") == 0 || (strcmp(opt->bind, "auto") == 0 && bound_by_slurm());

    share = (cores < quota ? cores : quota) / world->local_size;
    if (keep && t != NULL)
        share = inherited_cores(t);
    threads = opt->threads > 0 ? (int)opt->threads : (share > 1 ? share : 1);
    if (t == NULL)
        return threads;
    if (!keep && !(strcmp(opt->bind, "auto") == 0 && bind_near(t, pci))) {
        if (share >= 1 && strcmp(opt->bind, "auto") == 0 && cores <= quota &&
            threads <= cores / world->local_size)
            bind_range(t, world->local_rank * (cores / world->local_size),
                       cores / world->local_size);
        else
            unbind(t);
    }
    hwloc_topology_destroy(t);
    return threads;
}
