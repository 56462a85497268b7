#include "jobs/inputs.h"

#include "jobs/names.h"
#include "runtime/diag.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct expansion {
    const trm_spec *spec;
    trm_plan *plan;
    char path[PATH_MAX]; /* absolute, of what is being looked at */
    size_t len;
    uint64_t links_left_out;
    trm_err *err;
} expansion;

static trm_status refuse_system(expansion *self, int number)
{
    if (number == ENOENT || number == ENOTDIR)
        return trm_err_set(self->err, TRM_EINPUT, "input '%s' is not there", self->path);
    if (number == ENOMEM)
        return trm_err_set(self->err, TRM_ENOMEM, "no memory to look at input '%s'", self->path);
    return trm_err_errno(self->err, TRM_EINPUT, number, "input '%s' cannot be read", self->path);
}

/* ---- One file ----------------------------------------------------------------- */

/* A member begins with two magic bytes, the only method there is, and three reserved bits
 * that are 0: enough that random data is not taken for it. */
static bool looks_like_gzip(const uint8_t *head, ssize_t got)
{
    return got == 4 && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8 && (head[3] & 0xe0) == 0;
}

/* Takes over `fd`, which is self->path opened. */
static trm_status add_open_file(expansion *self, int fd, const struct stat *about)
{
    uint8_t head[4];
    ssize_t got = about->st_size ? pread(fd, head, sizeof head, 0) : 0;
    int number = errno;
    close(fd);
    if (got < 0)
        return refuse_system(self, number);
    uint64_t mtime_ns = (uint64_t)about->st_mtim.tv_sec * 1000000000u + (uint64_t)about->st_mtim.tv_nsec;
    return trm_plan_add_file(self->plan, self->path, (uint64_t)about->st_size, mtime_ns,
                             looks_like_gzip(head, got), self->err);
}

/* ---- Directories ----------------------------------------------------------------- */

typedef struct name_list {
    char **names;
    size_t count, room;
} name_list;

static void free_names(name_list *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->names[i]);
    free(self->names);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool keep_name(name_list *self, const char *name)
{
    if (self->count == self->room) {
        size_t room = self->room ? self->room * 2 : 64;
        char **names = realloc(self->names, room * sizeof *names);
        if (!names)
            return false;
        self->names = names;
        self->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return false;
    self->names[self->count++] = copy;
    return true;
}

static bool is_left_out(const char *name)
{
    return name[0] == '.' || strcmp(name, TRM_SUCCESS_NAME) == 0;
}

static trm_status list_directory(expansion *self, DIR *stream, name_list *out)
{
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (!entry && errno)
            return refuse_system(self, errno);
        if (!entry)
            break;
        if (is_left_out(entry->d_name))
            continue;
        if (entry->d_type == DT_LNK)
            self->links_left_out++;
        else if ((entry->d_type == DT_REG || entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN) &&
                 !keep_name(out, entry->d_name))
            return refuse_system(self, ENOMEM);
    }
    if (out->count)
        qsort(out->names, out->count, sizeof *out->names, by_bytes);
    return TRM_OK;
}

static trm_status walk(expansion *self, int fd, unsigned depth);

/* Opening says all: whether it can be read, and what it is. */
static trm_status add_entry(expansion *self, int dir_fd, const char *name, unsigned depth)
{
    size_t len_before = self->len, name_len = strlen(name);
    if (self->len + 1 + name_len >= sizeof self->path)
        return trm_err_set(self->err, TRM_EINPUT, "the path of an input is too long: '%.512s/…'", self->path);
    if (self->path[self->len - 1] != '/')
        self->path[self->len++] = '/';
    memcpy(self->path + self->len, name, name_len + 1);
    self->len += name_len;
    trm_status status = TRM_OK;
    struct stat about;
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == ELOOP)
        self->links_left_out++;
    else if (fd < 0 && errno == ENXIO) /* a socket, where the directory did not say so */
        ;
    else if (fd < 0)
        status = refuse_system(self, errno);
    else if (fstat(fd, &about) != 0) {
        status = refuse_system(self, errno);
        close(fd);
    } else if (S_ISREG(about.st_mode))
        status = add_open_file(self, fd, &about);
    else if (S_ISDIR(about.st_mode))
        status = walk(self, fd, depth + 1);
    else
        close(fd);
    self->len = len_before;
    self->path[self->len] = 0;
    return status;
}

/* Takes over `fd`. */
static trm_status walk(expansion *self, int fd, unsigned depth)
{
    if (depth > TRM_INPUTS_DEPTH_MAX) {
        close(fd);
        return trm_err_set(self->err, TRM_EINPUT, "input '%s' lies more than %u directories deep", self->path,
                           TRM_INPUTS_DEPTH_MAX);
    }
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int number = errno;
        close(fd);
        return refuse_system(self, number);
    }
    name_list list = {0};
    trm_status status = list_directory(self, stream, &list);
    for (size_t i = 0; i < list.count && status == TRM_OK; i++)
        status = add_entry(self, dirfd(stream), list.names[i], depth);
    free_names(&list);
    closedir(stream);
    return status;
}

/* ---- What a user names ------------------------------------------------------------ */

static trm_status set_path(expansion *self, const char *name)
{
    size_t len = 0, name_len = strlen(name);
    if (name[0] != '/') {
        if (!getcwd(self->path, sizeof self->path))
            return trm_err_errno(self->err, TRM_EINPUT, errno, "input '%s': the working directory is gone",
                                 name);
        while (name[0] == '.' && name[1] == '/') {
            name += 2 + strspn(name + 2, "/");
            name_len = strlen(name);
        }
        len = strlen(self->path);
        if (len > 1 && len + 1 < sizeof self->path)
            self->path[len++] = '/';
    }
    if (len + name_len >= sizeof self->path)
        return trm_err_set(self->err, TRM_EINPUT, "the path of an input is too long: '%.512s…'", name);
    memcpy(self->path + len, name, name_len + 1);
    self->len = len + name_len;
    while (self->len > 1 && self->path[self->len - 1] == '/')
        self->path[--self->len] = 0;
    return TRM_OK;
}

/* A file or a directory, links followed. */
static trm_status add_named(expansion *self, const char *name)
{
    if (!name[0])
        return trm_err_set(self->err, TRM_EINPUT, "an input has an empty name");
    trm_status status = set_path(self, name);
    if (status != TRM_OK)
        return status;
    int fd = open(self->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == ENXIO)
        return trm_err_set(self->err, TRM_EINPUT, "input '%s' is neither a file nor a directory", self->path);
    if (fd < 0)
        return refuse_system(self, errno);
    struct stat about;
    if (fstat(fd, &about) != 0) {
        int number = errno;
        close(fd);
        return refuse_system(self, number);
    }
    if (S_ISREG(about.st_mode))
        return add_open_file(self, fd, &about);
    if (!S_ISDIR(about.st_mode)) {
        close(fd);
        return trm_err_set(self->err, TRM_EINPUT, "input '%s' is neither a file nor a directory", self->path);
    }
    uint32_t before = self->plan->files_count;
    uint64_t links_before = self->links_left_out;
    status = walk(self, fd, 1);
    if (status == TRM_OK && self->plan->files_count == before)
        return trm_err_set(self->err, TRM_EINPUT, "input directory '%s' holds no file%s", self->path,
                           self->links_left_out > links_before ? " (links in a directory are not followed)"
                                                               : "");
    return status;
}

static trm_status add_pattern(expansion *self, const char *pattern)
{
    glob_t found;
    int result = glob(pattern, GLOB_NOSORT | GLOB_ERR, NULL, &found);
    if (result == GLOB_NOMATCH)
        return trm_err_set(self->err, TRM_EINPUT, "no input matches '%s'", pattern);
    if (result != 0) {
        int number = errno;
        globfree(&found);
        if (result == GLOB_NOSPACE)
            return trm_err_set(self->err, TRM_ENOMEM, "no memory to expand '%s'", pattern);
        return trm_err_errno(self->err, TRM_EINPUT, number, "a directory of the pattern '%s' cannot be read",
                             pattern);
    }
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, by_bytes);
    trm_status status = TRM_OK;
    for (size_t i = 0; i < found.gl_pathc && status == TRM_OK; i++)
        status = add_named(self, found.gl_pathv[i]);
    globfree(&found);
    return status;
}

static trm_status read_list(const char *path, char **out, size_t *len, trm_err *err)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return trm_err_errno(err, TRM_EINPUT, errno, "the list of inputs '%s' cannot be read", path);
    struct stat about;
    trm_status status = TRM_OK;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size > TRM_INPUTS_LIST_BYTES_MAX)
        status =
            trm_err_set(err, TRM_EINPUT, "the list of inputs '%s' is not a plain file of at most %u bytes",
                        path, TRM_INPUTS_LIST_BYTES_MAX);
    char *text = status == TRM_OK ? malloc((size_t)about.st_size + 1) : NULL;
    if (status == TRM_OK && !text)
        status = trm_err_set(err, TRM_ENOMEM, "no memory for the list of inputs '%s'", path);
    size_t done = 0;
    while (status == TRM_OK && done < (size_t)about.st_size) {
        ssize_t got = read(fd, text + done, (size_t)about.st_size - done);
        if (got < 0 && errno != EINTR)
            status = trm_err_errno(err, TRM_EINPUT, errno, "the list of inputs '%s' cannot be read", path);
        if (got == 0)
            break;
        done += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (status != TRM_OK) {
        free(text);
        return status;
    }
    text[done] = 0;
    *out = text;
    *len = done;
    return TRM_OK;
}

static trm_status add_list(expansion *self, const char *path)
{
    char *text = NULL;
    size_t len = 0, line = 1;
    trm_status status = read_list(path, &text, &len, self->err);
    if (status != TRM_OK)
        return status;
    uint32_t before = self->plan->files_count;
    for (char *at = text, *end = text + len; at < end && status == TRM_OK; line++) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        *stop = 0;
        if (stop > at && stop[-1] == '\r')
            stop[-1] = 0;
        if (strlen(at) + 1 < (size_t)(stop - at))
            status = trm_err_set(self->err, TRM_EINPUT, "the name holds a byte 0");
        else if (*at)
            status = add_named(self, at);
        at = stop + 1;
        if (status != TRM_OK)
            trm_err_wrap(self->err, "'%s', line %zu", path, line);
    }
    free(text);
    if (status == TRM_OK && self->plan->files_count == before)
        return trm_err_set(self->err, TRM_EINPUT, "the list of inputs '%s' names no file", path);
    return status;
}

static trm_status add_input(expansion *self, const char *input)
{
    struct stat about;
    if (input[0] == '@')
        return add_list(self, input + 1);
    if (strpbrk(input, "*?[") && lstat(input, &about) != 0)
        return add_pattern(self, input);
    return add_named(self, input);
}

/* A job must not eat what it, or the one before it in the same place, has made. */
static trm_status refuse_output(const expansion *self)
{
    const char *dir = self->spec->output_dir;
    if (!dir || !dir[0])
        return TRM_OK;
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    for (uint32_t i = 0; i < self->plan->files_count; i++) {
        const char *path = self->plan->files[i].path;
        if (strncmp(path, dir, len) == 0 && path[len] == '/')
            return trm_err_set(self->err, TRM_EINPUT, "input '%s' lies in the output directory", path);
    }
    return TRM_OK;
}

trm_status trm_inputs_expand(const trm_spec *spec, trm_plan *plan, trm_err *err)
{
    if (spec->inputs_count == 0)
        return trm_err_set(err, TRM_EUSAGE, "the job reads an input, and none is given");
    expansion *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to look at the inputs");
    self->spec = spec;
    self->plan = plan;
    self->err = err;
    trm_status status = TRM_OK;
    for (unsigned i = 0; i < spec->inputs_count && status == TRM_OK; i++)
        status = add_input(self, spec->inputs[i]);
    if (status == TRM_OK)
        status = refuse_output(self);
    if (status == TRM_OK && self->links_left_out)
        trm_info("%llu symbolic links inside input directories are not followed; name them to read them",
                 (unsigned long long)self->links_left_out);
    free(self);
    return status;
}
