/* SPDX-License-Identifier: Apache-2.0 */
/* keys.c - see keys.h. */
#include "launcher/keys.h"

#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

static tp_status read_keys(launch_list *keys, tp_arena *arena, const char *path)
{
    struct stat info;
    tp_status st;
    tp_buf text;

    tp_buf_init(&text, 1 << 20);
    st = tp_buf_read_file(&text, path, 1 << 20);
    if (stat(path, &info) == 0 && (info.st_mode & (S_IROTH | S_IWOTH)) != 0)
        tp_warn("launcher", "%s can be read by every user of this host: chmod 600", path);
    for (const char *line = tp_buf_str(&text); *line != '\0' && st == TP_OK;) {
        size_t len = strcspn(line, "\r\n");

        if (len > 0 && *line != '#') {
            if (keys->n == LAUNCH_LIST_MAX)
                st = TP_REJECT(TP_ERR_INVALID, "%s: more than %d keys", path, LAUNCH_LIST_MAX);
            else if ((keys->items[keys->n] = tp_arena_strndup(arena, line, len)) == NULL)
                st = TP_REJECT(TP_ERR_NOMEM, "out of memory for keys");
            else
                keys->n++;
        }
        line += len;
        line += strspn(line, "\r\n");
    }
    if (text.data != NULL)
        tp_wipe(text.data, text.len);
    tp_buf_release(&text);
    return st;
}

tp_status launch_settle_keys(launch_list *keys, tp_arena *arena, const launch_options *opt)
{
    *keys = opt->api_key;
    if (opt->api_key_file != NULL) {
        TP_TRY(read_keys(keys, arena, opt->api_key_file));
        if (keys->n == opt->api_key.n)
            return TP_REJECT(TP_ERR_INVALID, "--api-key-file %s holds no key", opt->api_key_file);
    }
    if (keys->n == 0 && !opt->insecure && !is_loopback(opt->host))
        return TP_REJECT(TP_ERR_INVALID,
                         "--host %s is reachable from other machines and no API key is set: give "
                         "--api-key-file, or --insecure if that is meant",
                         opt->host);
    return TP_OK;
}
