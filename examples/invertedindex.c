/* invertedindex: for each word the documents that it is in, sorted. A document is a file; a word
 * is a longest run of ASCII letters and digits, in lower case.
 *
 * A general reduce: it sees the documents of a word in no particular order, some of them often
 * (once a spill and map), and makes one line of them. The combiner is the same work done early.
 */
#include <trireme.h>

#include <stdlib.h>
#include <string.h>

enum { DOCUMENTS };
static const char *const counters[] = {[DOCUMENTS] = "documents", NULL};

/* ---- map --------------------------------------------------------------------------------- */

static char *word; /* in lower case; grows */
static size_t word_room;

static bool is_of_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool make_room(char **bytes, size_t *room, size_t need)
{
    if (need <= *room)
        return true;
    char *more = realloc(*bytes, need * 2);
    if (!more)
        return false;
    *bytes = more;
    *room = need * 2;
    return true;
}

static int map(trm_task *task, const trm_record *record)
{
    const char *document = record->path, *end = record->data + record->len;
    const char *slash = strrchr(document, '/');
    if (trm_param_bool(task, "names") && slash)
        document = slash + 1;
    size_t document_len = strlen(document), len = 0;
    if (record->offset == 0)
        trm_count(task, DOCUMENTS, 1);
    if (!make_room(&word, &word_room, record->len + 1))
        return trm_task_fail(task, "no memory for a line of %zu bytes", record->len);
    for (const char *at = record->data; at <= end; at++) {
        if (at < end && is_of_word((unsigned char)*at)) {
            word[len++] = (char)(*at >= 'A' && *at <= 'Z' ? *at + ('a' - 'A') : *at);
        } else if (len) {
            trm_emit(task, word, len, document, document_len);
            len = 0;
        }
    }
    return 0;
}

/* ---- combine and reduce -------------------------------------------------------------------- */

/* The documents of one word: their names end to end, each terminated, and where they begin.
 * Kept from word to word. */
static char *names;
static size_t names_room, *begins, begins_room;

static int by_name(const void *a, const void *b)
{
    return strcmp(names + *(const size_t *)a, names + *(const size_t *)b);
}

static int add_document(trm_task *task, size_t number, size_t at, const void *name, size_t name_len)
{
    if (number == begins_room) {
        size_t room = begins_room ? begins_room * 2 : 256, *more = realloc(begins, room * sizeof *more);
        if (!more)
            return trm_task_fail(task, "no memory for %zu documents of a word", room);
        begins = more;
        begins_room = room;
    }
    if (!make_room(&names, &names_room, at + name_len + 1))
        return trm_task_fail(task, "no memory for the names of %zu documents", number);
    memcpy(names + at, name, name_len);
    names[at + name_len] = 0;
    begins[number] = at;
    return 0;
}

/* Sorted and without doubles: how many are left in `begins`. */
static size_t sort_documents(size_t count)
{
    size_t kept = 0;
    qsort(begins, count, sizeof *begins, by_name);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(names + begins[i], names + begins[kept - 1]) != 0)
            begins[kept++] = begins[i];
    return kept;
}

/* The documents of the word, in `begins`; false: there was no memory. */
static bool collect(trm_task *task, trm_values *values, size_t *count)
{
    const void *name;
    size_t name_len, at = 0, number = 0;
    while (trm_values_next(values, &name, &name_len)) {
        /* The same again, as most are within a map: no need to keep it. */
        if (number && strlen(names + begins[number - 1]) == name_len &&
            memcmp(names + begins[number - 1], name, name_len) == 0)
            continue;
        if (add_document(task, number++, at, name, name_len))
            return false;
        at += name_len + 1;
    }
    *count = sort_documents(number);
    return true;
}

static int combine(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    size_t count;
    if (!collect(task, values, &count))
        return -1;
    for (size_t i = 0; i < count; i++)
        trm_emit(task, key, key_len, names + begins[i], strlen(names + begins[i]));
    return 0;
}

static int reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    static char *list;
    static size_t list_room;
    const char *separator = trm_param_string(task, "separator");
    size_t count, len = 0, separator_len = strlen(separator);
    if (!collect(task, values, &count))
        return -1;
    for (size_t i = 0; i < count; i++) {
        size_t name_len = strlen(names + begins[i]);
        if (!make_room(&list, &list_room, len + separator_len + name_len))
            return trm_task_fail(task, "no memory for a list of %zu documents", count);
        if (i) {
            memcpy(list + len, separator, separator_len);
            len += separator_len;
        }
        memcpy(list + len, names + begins[i], name_len);
        len += name_len;
    }
    trm_emit(task, key, key_len, list, len);
    return 0;
}

static const trm_param params[] = {
    {.name = "names",
     .type = TRM_PARAM_BOOL,
     .value = "false",
     .help = "documents by name, without the directory"},
    {.name = "separator", .type = TRM_PARAM_STRING, .value = " ", .help = "between two documents"},
    {0}};

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,     .name = "invertedindex", .help = "lists the files that each word is in",
    .params = params,   .counters = counters,    .map = map,
    .combine = combine, .reduce = reduce,
};
