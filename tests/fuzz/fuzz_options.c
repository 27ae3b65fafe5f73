/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_options.c - the YAML file of --config.  What is accepted is printed as --print-config does. */
#include <stdio.h>
#include <string.h>

#include "launcher/options.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    char name[] = "tpserve", command[] = "serve", flag[] = "--config", path[128];
    char *argv[] = {name, command, flag, path, NULL};
    launch_parser p;
    tp_status st;

    fuzz_init();
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    TP_ASSERT(nowhere != NULL);
    (void)snprintf(path, sizeof path, "%.100s/config.yaml", fuzz_dir());
    fuzz_file("config.yaml", data, size);
    st = launch_parse(&p, 4, argv);
    if (st == TP_OK || st == TP_ERR_EXIT)
        launch_print_config(nowhere, &p);
    else
        TP_ASSERT(tp_last_error()[0] != '\0');
    launch_parser_release(&p);
    return 0;
}
