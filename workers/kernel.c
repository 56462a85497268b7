#include "workers/kernel.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The loader's own words about a wrong file are many and odd; these cases are told apart
 * before it is asked. */
static trm_status check_file(const char *path, trm_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return trm_err_set(err, TRM_EJOB, "kernel '%s' is not there", path);
    if (fd < 0)
        return trm_err_errno(err, TRM_EJOB, errno, "kernel '%s' cannot be read", path);
    struct stat about;
    Elf64_Ehdr head = {0};
    ssize_t got = -1;
    trm_status status = TRM_OK;
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode))
        got = pread(fd, &head, sizeof head, 0);
    if (got < (ssize_t)EI_NIDENT || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
        status = trm_err_set(err, TRM_EJOB, "kernel '%s' is not a shared object", path);
    else if (got == (ssize_t)sizeof head && head.e_ident[EI_CLASS] == ELFCLASS64 && head.e_type != ET_DYN)
        status = trm_err_set(err, TRM_EJOB,
                             "kernel '%s' is not a shared object (build it with -shared -fPIC)", path);
    close(fd);
    return status;
}

static trm_status load(trm_kernel *self, const char *path, trm_err *err)
{
    /* A name without a slash would be looked for in the loader's directories. */
    char here[4096];
    int len = snprintf(here, sizeof here, "%s%s", strchr(path, '/') ? "" : "./", path);
    if (len < 0 || (size_t)len >= sizeof here)
        return trm_err_set(err, TRM_EJOB, "the path of the kernel is too long: '%.512s…'", path);
    trm_status status = check_file(here, err);
    if (status != TRM_OK)
        return status;
    self->handle = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    if (!self->handle)
        return trm_err_set(err, TRM_EJOB, "kernel '%s' does not load: %s", path, dlerror());
    self->job = dlsym(self->handle, TRM_JOB_SYMBOL);
    if (!self->job)
        return trm_err_set(err, TRM_EJOB,
                           "kernel '%s' has no symbol " TRM_JOB_SYMBOL " (is TRM_EXPORT_JOB missing?)", path);
    return TRM_OK;
}

trm_status trm_kernel_describe(trm_kernel *self, const trm_spec *spec, trm_err *err)
{
    trm_kernel kernel = {.job = spec->own_job};
    trm_status status = TRM_OK;
    if (!spec->own_job)
        status = load(&kernel, spec->kernel_path, err);
    if (status == TRM_OK) {
        status = trm_traits_of(&kernel.traits, kernel.job, err);
        if (status == TRM_EJOB && !spec->own_job)
            trm_err_wrap(err, "kernel '%s'", spec->kernel_path);
    }
    if (status != TRM_OK) {
        trm_kernel_close(&kernel);
        return status;
    }
    *self = kernel;
    return TRM_OK;
}

trm_status trm_kernel_open(trm_kernel *self, const trm_spec *spec, trm_err *err)
{
    trm_kernel kernel;
    trm_status status = trm_kernel_describe(&kernel, spec, err);
    if (status != TRM_OK)
        return status;
    status = trm_params_init(&kernel.params, kernel.job, spec->params, spec->params_count, err);
    if (status != TRM_OK) {
        if (status == TRM_EJOB && !spec->own_job)
            trm_err_wrap(err, "kernel '%s'", spec->kernel_path);
        trm_kernel_close(&kernel);
        return status;
    }
    kernel.traits.params_hash = trm_params_hash(&kernel.params);
    *self = kernel;
    return TRM_OK;
}

void trm_kernel_close(trm_kernel *self)
{
    trm_params_close(&self->params);
    if (self->handle)
        dlclose(self->handle);
    *self = (trm_kernel){0};
}
