/* SPDX-License-Identifier: Apache-2.0 */
/* docgen.c - texts made from the option table: help, man page, completion, the printed configuration. */
#include <string.h>

#include "launcher/options.h"

static const struct {
    launch_command command;
    const char *line;
} k_usages[] = {
    {LAUNCH_SERVE, "mpirun -np N tpserve [serve] --model MODEL [options]"},
    {LAUNCH_SERVE, "tpserve --tensor-parallel-size N --model MODEL [options]"},
    {LAUNCH_INSPECT, "tpserve inspect MODEL [--tensor-parallel-size N]"},
    {LAUNCH_PLAN, "tpserve plan MODEL [--gpu NAME] [--tensor-parallel-size N] [--load R,P,O]"},
    {LAUNCH_DOCTOR, "[mpirun -np N] tpserve doctor [--model MODEL]"},
    {LAUNCH_BENCH, "tpserve bench [--base-url URL] [--max-concurrency 1,4,16]"},
    {LAUNCH_BENCH, "[mpirun -np N] tpserve bench MODEL --engine"},
    {LAUNCH_BENCH, "tpserve bench MODEL --host"},
    {LAUNCH_BENCH, "mpirun -np N tpserve bench --comm [--output FILE]"},
    {LAUNCH_VERSION, "tpserve --version"},
};

static const struct {
    launch_command command;
    const char *word, *purpose;
} k_commands[] = {
    {LAUNCH_SERVE, "serve",
     "Serves a language model over the OpenAI API from N ranks that share it."},
    {LAUNCH_INSPECT, "inspect", "Says what a model is and what each of N ranks would keep of it."},
    {LAUNCH_PLAN, "plan",
     "Says on which devices a model fits and how fast it should be there, from data sheets."},
    {LAUNCH_DOCTOR, "doctor",
     "Looks at the hosts, devices, memory and network that a server would use."},
    {LAUNCH_BENCH, "bench",
     "Measures a server over HTTP; an engine in this job (--engine), the host's work (--host), "
     "sums over the ranks (--comm)."},
    {LAUNCH_VERSION, "version", "Prints the version."},
};

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

static void print_row(FILE *out, const launch_row *r)
{
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

/* The rows that these commands look at, under their headings; of them those that a server looks at, too, or the others. */
static void print_rows(FILE *out, unsigned commands, bool of_server)
{
    const char *group = NULL, *said = NULL;

    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        group = r->group != NULL ? r->group : group;
        if ((r->flags & LAUNCH_HIDDEN) != 0 || (r->flags & commands) == 0 ||
            ((r->flags & LAUNCH_FOR(LAUNCH_SERVE)) != 0) != of_server)
            continue;
        if (group != said)
            fprintf(out, "\n%s\n", group);
        said = group;
        print_row(out, r);
    }
}

void launch_print_help(FILE *out, unsigned commands)
{
    bool all = commands == LAUNCH_FOR_ALL;

    for (size_t i = 0, n = 0; i < TP_ARRAY_LEN(k_usages); i++)
        if (all || LAUNCH_FOR(k_usages[i].command) == commands)
            fprintf(out, "%s%s\n", n++ == 0 ? "usage: " : "       ", k_usages[i].line);
    fputs(all ? "\nCommands\n" : "\n", out);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_commands); i++) {
        if (all)
            fprintf(out, "  %s\n", k_commands[i].word);
        if (all || LAUNCH_FOR(k_commands[i].command) == commands)
            wrap(out, k_commands[i].purpose, all ? 6 : 0, all ? 90 : 96);
    }
    if (all)
        fputs(
            "\nThese are the options of all commands; tpserve COMMAND --help lists those of one.\n",
            out);
    /* what is peculiar to a tool comes first in its help */
    print_rows(out, commands, (commands & LAUNCH_FOR(LAUNCH_SERVE)) != 0);
    print_rows(out, commands, (commands & LAUNCH_FOR(LAUNCH_SERVE)) == 0);
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
    for (size_t i = 0; i < TP_ARRAY_LEN(k_usages); i++) {
        roff(out, k_usages[i].line);
        fputc('\n', out);
    }
    fputs(".fi\n.SH DESCRIPTION\n", out);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_commands); i++) {
        fprintf(out, ".TP\n.B %s\n", k_commands[i].word);
        roff(out, k_commands[i].purpose);
        fputc('\n', out);
    }
    fputs(".SH OPTIONS\n", out);
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

static void put_option_words(FILE *out, unsigned commands)
{
    for (int i = 0; i < launch_n_rows; i++)
        if ((launch_rows[i].flags & LAUNCH_HIDDEN) == 0 && (launch_rows[i].flags & commands) != 0)
            fprintf(out, " --%s", launch_rows[i].name);
}

void launch_print_completion(FILE *out)
{
    fputs("_tpserve()\n{\n    local words\n    case \"${COMP_WORDS[1]}\" in\n", out);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_commands); i++) {
        fprintf(out, "    %s) words=\"", k_commands[i].word);
        put_option_words(out, LAUNCH_FOR(k_commands[i].command));
        fputs("\" ;;\n", out);
    }
    fputs("    *) words=\"", out); /* no command yet, or a server */
    for (size_t i = 0; i < TP_ARRAY_LEN(k_commands); i++)
        fprintf(out, "%s ", k_commands[i].word);
    put_option_words(out, LAUNCH_FOR(LAUNCH_SERVE));
    fputs("\" ;;\n    esac\n    case \"${COMP_WORDS[COMP_CWORD-1]}\" in\n", out);
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
