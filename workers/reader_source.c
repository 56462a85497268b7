#include "workers/reader_source.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define IN_BYTES (128u * 1024u)
/* Less is read before the system notices by itself that reading goes on. */
#define SEQUENTIAL_BYTES (512u * 1024u)

typedef struct trm_inflater {
    z_stream stream;
    bool in_member; /* between header and trailer */
    bool padding;   /* behind the last member, where only zeros may come */
    uint64_t members;
    uint8_t in[IN_BYTES];
} trm_inflater;

/* ---- Opening --------------------------------------------------------------------- */

static trm_status refuse_open(const trm_plan_file *file, int number, trm_err *err)
{
    if (number == ENOENT || number == ENOTDIR || number == ESTALE)
        return trm_err_set(err, TRM_EINPUT, "input '%s' has vanished since the job was planned", file->path);
    bool system =
        number == EMFILE || number == ENFILE || number == ENOMEM || number == EIO || number == EINTR;
    return trm_err_errno(err, system ? TRM_EIO : TRM_EINPUT, number, "input '%s' cannot be opened",
                         file->path);
}

static trm_status refuse_shrunk(const trm_plan_file *file, uint64_t bytes, trm_err *err)
{
    return trm_err_set(err, TRM_EINPUT,
                       "input '%s' has changed: it had %llu bytes when the job was planned, now %llu",
                       file->path, (unsigned long long)file->bytes, (unsigned long long)bytes);
}

static trm_status begin_gzip(trm_source *self, trm_err *err)
{
    if (!self->inflater) {
        trm_inflater *inflater = calloc(1, sizeof *inflater);
        if (!inflater || inflateInit2(&inflater->stream, 15 + 16) != Z_OK) {
            free(inflater);
            return trm_err_set(err, TRM_ENOMEM, "no memory to read gzip input '%s'", self->file->path);
        }
        self->inflater = inflater;
    }
    trm_inflater *inflater = self->inflater;
    inflateReset(&inflater->stream);
    inflater->stream.avail_in = 0;
    inflater->in_member = false;
    inflater->padding = false;
    inflater->members = 0;
    return TRM_OK;
}

trm_status trm_source_open(trm_source *self, const trm_plan_file *file, uint64_t offset, trm_err *err)
{
    assert(!self->file && offset <= file->bytes && !(file->gzip && offset));
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return refuse_open(file, errno, err);
    self->fd = fd;
    self->file = file;
    self->at = offset;
    struct stat about;
    trm_status status = TRM_OK;
    if (fstat(fd, &about) != 0)
        status = refuse_open(file, errno, err);
    else if (!S_ISREG(about.st_mode))
        status = trm_err_set(err, TRM_EINPUT, "input '%s' is not a plain file any more", file->path);
    else if ((uint64_t)about.st_size < file->bytes)
        status = refuse_shrunk(file, (uint64_t)about.st_size, err);
    else if (file->gzip)
        status = begin_gzip(self, err);
    if (status != TRM_OK)
        trm_source_close(self);
    else if (file->bytes - offset > SEQUENTIAL_BYTES)
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* a hint: read further ahead */
    return status;
}

void trm_source_close(trm_source *self)
{
    if (self->file)
        close(self->fd);
    self->file = NULL;
}

void trm_source_destroy(trm_source *self)
{
    trm_source_close(self);
    if (self->inflater) {
        inflateEnd(&self->inflater->stream);
        free(self->inflater);
    }
    *self = (trm_source){0};
}

/* ---- Reading ---------------------------------------------------------------------- */

/* As it is on disk; *got is less than `room` only at the end that the plan knows. */
static trm_status read_stored(trm_source *self, uint8_t *out, size_t room, size_t *got, trm_err *err)
{
    uint64_t left = self->file->bytes - self->at;
    size_t want = room < left ? room : (size_t)left, done = 0;
    while (done < want) {
        ssize_t now = pread(self->fd, out + done, want - done, (off_t)(self->at + done));
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0 && errno == ESTALE)
            return refuse_open(self->file, errno, err);
        if (now < 0)
            return trm_err_errno(err, TRM_EIO, errno, "input '%s' cannot be read at byte %llu",
                                 self->file->path, (unsigned long long)(self->at + done));
        if (now == 0)
            return refuse_shrunk(self->file, self->at + done, err);
        done += (size_t)now;
    }
    self->at += done;
    *got = done;
    return TRM_OK;
}

/* Where the next byte that inflate has not seen lies in the file. */
static unsigned long long gzip_offset(const trm_source *self)
{
    return (unsigned long long)(self->at - self->inflater->stream.avail_in);
}

static trm_status refill_gzip(trm_source *self, trm_err *err)
{
    trm_inflater *inflater = self->inflater;
    size_t got;
    trm_status status = read_stored(self, inflater->in, sizeof inflater->in, &got, err);
    if (status != TRM_OK)
        return status;
    inflater->stream.next_in = inflater->in;
    inflater->stream.avail_in = (uInt)got;
    if (got == 0 && inflater->in_member)
        return trm_err_set(err, TRM_EINPUT,
                           "gzip input '%s' is truncated: it ends at byte %llu inside a member",
                           self->file->path, (unsigned long long)self->at);
    return TRM_OK;
}

/* Between members: another one, zeros, or the end. With input at hand. */
static trm_status begin_member(trm_source *self, trm_err *err)
{
    trm_inflater *inflater = self->inflater;
    z_stream *stream = &inflater->stream;
    if (inflater->padding || (inflater->members && *stream->next_in == 0)) {
        inflater->padding = true;
        while (stream->avail_in && *stream->next_in == 0) {
            stream->next_in++;
            stream->avail_in--;
        }
        if (stream->avail_in)
            return trm_err_set(err, TRM_EINPUT, "gzip input '%s' has bytes that are no gzip at byte %llu",
                               self->file->path, gzip_offset(self));
        return TRM_OK;
    }
    inflateReset(stream);
    inflater->in_member = true;
    return TRM_OK;
}

static trm_status inflate_some(trm_source *self, trm_err *err)
{
    trm_inflater *inflater = self->inflater;
    int result = inflate(&inflater->stream, Z_NO_FLUSH);
    if (result == Z_STREAM_END) {
        inflater->in_member = false;
        inflater->members++;
    } else if (result == Z_MEM_ERROR) {
        return trm_err_set(err, TRM_ENOMEM, "no memory to read gzip input '%s'", self->file->path);
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
        return trm_err_set(err, TRM_EINPUT, "gzip input '%s' is corrupt at byte %llu: %s", self->file->path,
                           gzip_offset(self),
                           inflater->stream.msg ? inflater->stream.msg : "no known format");
    }
    return TRM_OK;
}

static trm_status read_gzip(trm_source *self, void *out, size_t room, size_t *got, trm_err *err)
{
    trm_inflater *inflater = self->inflater;
    z_stream *stream = &inflater->stream;
    stream->next_out = out;
    stream->avail_out = room < UINT32_MAX ? (uInt)room : UINT32_MAX;
    room = stream->avail_out;
    while (stream->avail_out) {
        trm_status status = TRM_OK;
        if (stream->avail_in == 0) {
            status = refill_gzip(self, err);
            if (status == TRM_OK && stream->avail_in == 0)
                break; /* the end */
        }
        if (status == TRM_OK && !inflater->in_member)
            status = begin_member(self, err);
        if (status == TRM_OK && inflater->in_member)
            status = inflate_some(self, err);
        if (status != TRM_OK)
            return status;
    }
    *got = room - stream->avail_out;
    return TRM_OK;
}

trm_status trm_source_read(trm_source *self, void *out, size_t room, size_t *got, trm_err *err)
{
    assert(self->file);
    return self->file->gzip ? read_gzip(self, out, room, got, err) : read_stored(self, out, room, got, err);
}
