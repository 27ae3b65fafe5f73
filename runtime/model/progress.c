/* SPDX-License-Identifier: Apache-2.0 */
/* progress.c - see progress.h. */
#include "runtime/model/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define BAR_WIDTH 40

static void put(const char *text, int len)
{
    if (write(STDERR_FILENO, text, (size_t)len) < 0)
        return; /* a bar that cannot be drawn is no failure */
}

void rt_progress_init(rt_progress *p, bool wanted, const char *what)
{
    p->on = wanted && isatty(STDERR_FILENO) == 1;
    p->what = what;
    p->start_ns = tp_now_ns();
    rt_progress_show(p, 0);
}

void rt_progress_show(rt_progress *p, double share)
{
    char bar[BAR_WIDTH + 1], line[160];
    int filled = (int)(share * BAR_WIDTH);

    if (!p->on)
        return;
    memset(bar, ' ', BAR_WIDTH);
    memset(bar, '#', (size_t)filled);
    bar[BAR_WIDTH] = '\0';
    put(line,
        snprintf(line, sizeof line, "\r%s [%s] %3d %% %4.0f s", p->what, bar, (int)(share * 100),
                 (double)(tp_now_ns() - p->start_ns) / (double)TP_NS_PER_S));
}

void rt_progress_end(rt_progress *p)
{
    char line[160];

    if (!p->on)
        return;
    put(line, snprintf(line, sizeof line, "\r%*s\r", (int)sizeof line - 50, ""));
    p->on = false;
}
