/* SPDX-License-Identifier: Apache-2.0 */
/* docgen.c - texts made from the option table: help, man page, completion, the printed configuration. */
#include <string.h>

#include "launcher/options.h"

static const char k_usage[] =
    "usage: mpirun -np N tpserve [serve] --model MODEL [options]\n"
    "       tpserve --tensor-parallel-size N --model MODEL [options]\n"
    "       tpserve inspect MODEL [--tensor-parallel-size N]\n"
    "       tpserve plan MODEL [--gpu NAME] [--tensor-parallel-size N] [--load R,P,O]\n"
    "       [mpirun -np N] tpserve doctor [--model MODEL]\n"
    "       tpserve bench [--base-url URL] [--max-concurrency 1,4,16]\n"
    "       [mpirun -np N] tpserve bench MODEL --engine\n"
    "       tpserve bench MODEL --host\n"
    "       mpirun -np N tpserve bench --comm [--output FILE]\n"
    "       tpserve --version\n";

static const char k_purpose[] =
    "Serves a language model over the OpenAI API from N ranks that share it.\n";

static const char *placeholder(const launch_row *r)
{
    switch (r->type) {
    case LAUNCH_TYPE_BOOL: return "";
    case LAUNCH_TYPE_INT: return " N";
    case LAUNCH_TYPE_BYTES: return " SIZE";
    case LAUNCH_TYPE_REAL: return " X";
    case LAUNCH_TYPE_WORD:
    case LAUNCH_TYPE_STRING:
    case LAUNCH_TYPE_LIST: break;
    }
    return r->words != NULL ? " WORD" : " TEXT";
}

/* What stands before an alias: one letter has one dash. */
static const char *alias_dashes(const launch_row *r)
{
    return r->alias[1] == '\0' ? ", -" : ", --";
}

/* Prints text in lines of at most `width` characters, each behind `indent` spaces. */
static void wrap(FILE *out, const char *text, int indent, int width)
{
    while (*text != '\0') {
        int len = (int)strlen(text), cut = len;

        if (len > width) {
            for (cut = width; cut > 0 && text[cut] != ' ';)
                cut--;
            cut = cut > 0 ? cut : width;
        }
        fprintf(out, "%*s%.*s\n", indent, "", cut, text);
        text += cut;
        while (*text == ' ')
            text++;
    }
}

void launch_print_help(FILE *out)
{
    fprintf(out, "%s\n%s", k_usage, k_purpose);
    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        if ((r->flags & LAUNCH_HIDDEN) != 0)
            continue;
        if (r->group != NULL)
            fprintf(out, "\n%s\n", r->group);
        fprintf(out, "  --%s%s", r->name, placeholder(r));
        if (r->alias != NULL)
            fprintf(out, "%s%s", alias_dashes(r), r->alias);
        if (r->words != NULL)
            fprintf(out, "  {%s}", r->words);
        if (r->dflt != NULL)
            fprintf(out, "  [%s]", r->dflt);
        fputc('\n', out);
        wrap(out, r->doc, 6, 90);
    }
    fputs("\nA switch that is on is turned off with --no-NAME. Every option may also be given as "
          "TPSERVE_<NAME>\nin the environment or in a YAML file (--config).\n",
          out);
}

void launch_print_value(FILE *out, const launch_row *r, const launch_options *o)
{
    const char *field = (const char *)o + r->offset;
    const launch_list *list;
    const char *text;
    int64_t number;
    double real;

    switch (r->type) {
    case LAUNCH_TYPE_BOOL: fputs(*(const bool *)field ? "true" : "false", out); return;
    case LAUNCH_TYPE_INT:
    case LAUNCH_TYPE_BYTES:
        memcpy(&number, field, sizeof number);
        fprintf(out, "%lld", (long long)number);
        return;
    case LAUNCH_TYPE_REAL:
        memcpy(&real, field, sizeof real);
        fprintf(out, "%g", real);
        return;
    case LAUNCH_TYPE_LIST:
        list = (const launch_list *)(const void *)field;
        fputc('[', out);
        for (int i = 0; i < list->n; i++)
            fprintf(out, "%s\"%s\"", i > 0 ? ", " : "",
                    r->flags & LAUNCH_SECRET ? "***" : list->items[i]);
        fputc(']', out);
        return;
    case LAUNCH_TYPE_STRING:
    case LAUNCH_TYPE_WORD: break;
    }
    memcpy(&text, field, sizeof text);
    fputs(text != NULL ? text : "null", out);
}

void launch_print_config(FILE *out, const launch_parser *p)
{
    static const char *const k_origin[] = {"default", "file", "environment", "command line"};

    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        if ((r->flags & LAUNCH_HIDDEN) != 0)
            continue;
        fprintf(out, "%s: ", r->name);
        launch_print_value(out, r, &p->opt);
        fprintf(out, "  # %s\n", k_origin[p->origin[i]]);
    }
}

/* roff text: backslashes and leading dots are escaped, hyphens are minus signs. */
static void roff(FILE *out, const char *text)
{
    for (const char *s = text; *s != '\0'; s++) {
        if (*s == '\\')
            fputs("\\e", out);
        else if (*s == '-')
            fputs("\\-", out);
        else
            fputc(*s, out);
    }
}

void launch_print_man(FILE *out)
{
    fputs(".TH TPSERVE 1\n.SH NAME\ntpserve \\- serve a language model from MPI ranks over the "
          "OpenAI API\n.SH SYNOPSIS\n.nf\n",
          out);
    for (const char *line = strchr(k_usage, ':') + 1; *line != '\0';) {
        size_t n = strcspn(line + strspn(line, " "), "\n");
        char text[128];

        line += strspn(line, " ");
        snprintf(text, sizeof text, "%.*s\n", (int)n, line);
        roff(out, text);
        line += n + (line[n] == '\n');
    }
    fprintf(out, ".fi\n.SH DESCRIPTION\n%s.SH OPTIONS\n", k_purpose);
    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        if ((r->flags & LAUNCH_HIDDEN) != 0)
            continue;
        if (r->group != NULL)
            fprintf(out, ".SS %s\n", r->group);
        fputs(".TP\n.B ", out);
        roff(out, "--");
        roff(out, r->name);
        fputs(placeholder(r), out);
        if (r->alias != NULL) {
            roff(out, alias_dashes(r));
            roff(out, r->alias);
        }
        fputc('\n', out);
        roff(out, r->doc);
        if (r->words != NULL) {
            fputs(" One of ", out);
            roff(out, r->words);
            fputc('.', out);
        }
        if (r->dflt != NULL) {
            fputs(" Default: ", out);
            roff(out, r->dflt);
            fputc('.', out);
        }
        fputc('\n', out);
    }
    fputs(
        ".SH ENVIRONMENT\nEvery option may be given as TPSERVE_<NAME>; TPSERVE_MODELS is a list of "
        "directories for aliases; TPSERVE_CPU_ISA forces generic, avx2, avx512 or amx.\n"
        ".SH SIGNALS\nSIGTERM, SIGINT or SIGUSR1 drain: running requests finish within "
        "\\-\\-shutdown\\-timeout. Under mpirun send SIGUSR1 to mpirun, which forwards it.\n"
        ".SH EXIT STATUS\n0: drained. 1: did not start. 2: usage. 70: a rank was lost. 71: not all "
        "ranks arrived in time. 75: a step of a single rank hung.\n",
        out);
}

void launch_print_completion(FILE *out)
{
    fputs("_tpserve()\n{\n    local words=\"serve inspect plan doctor bench version", out);
    for (int i = 0; i < launch_n_rows; i++)
        if ((launch_rows[i].flags & LAUNCH_HIDDEN) == 0)
            fprintf(out, " --%s", launch_rows[i].name);
    fputs("\"\n    case \"${COMP_WORDS[COMP_CWORD-1]}\" in\n", out);
    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        if (r->words == NULL || (r->flags & LAUNCH_HIDDEN) != 0)
            continue;
        fprintf(out, "    --%s) words=\"", r->name);
        for (const char *s = r->words; *s != '\0'; s++)
            fputc(*s == '|' ? ' ' : *s, out);
        fputs("\" ;;\n", out);
    }
    fputs("    --model|--config|--api-key-file) COMPREPLY=($(compgen -f -- "
          "\"${COMP_WORDS[COMP_CWORD]}\")); return ;;\n    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n"
          "complete -o default -F _tpserve tpserve\n",
          out);
}
