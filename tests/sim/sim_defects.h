/* SPDX-License-Identifier: Apache-2.0 */
/* sim_defects.h - which planted defect is active.
 *
 * The program `sim` has none.  `sim_defects` is built from copies of the sources under test in which defects.py has planted
 * all of its defects, each behind `sim_defect(number)`.
 */
#ifndef SIM_DEFECTS_H
#define SIM_DEFECTS_H

#include <stdbool.h>

/* False: there is no such defect in this program. */
bool sim_plant_defect(const char *name);
bool sim_defect(int number);

#endif
