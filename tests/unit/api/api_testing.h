/* SPDX-License-Identifier: Apache-2.0 */
/* api_testing.h - what the unit tests of api/ include first. */
#ifndef TESTS_UNIT_API_TESTING_H
#define TESTS_UNIT_API_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#endif
