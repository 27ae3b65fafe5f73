/* SPDX-License-Identifier: Apache-2.0 */
/* sim_sound.c - the program without planted defects. */
#include "tests/sim/sim_defects.h"

bool sim_plant_defect(const char *name)
{
    (void)name;
    return false;
}
