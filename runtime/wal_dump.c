/* Showing and checking a log without touching it: for `trireme log DIR`. */
#include "runtime/wal_internal.h"

typedef struct dump {
    FILE *out;
    bool entries;
    const trm_wal_snapshot *snapshot; /* not printed yet; else NULL */
    uint64_t sequence;                /* of the segment whose line has been printed */
} dump;

/* In front of the segments, as it comes before them. */
static void show_snapshot(dump *self)
{
    const trm_wal_snapshot *snapshot = self->snapshot;
    self->snapshot = NULL;
    if (!snapshot || snapshot->index == 0)
        return;
    fprintf(self->out, "snapshot of entry %llu, term %llu: %zu bytes of configuration, %llu of data\n",
            (unsigned long long)snapshot->index, (unsigned long long)snapshot->term, snapshot->config_len,
            (unsigned long long)snapshot->data_bytes);
}

static void show_segment(dump *self, const wal_segment *segment)
{
    show_snapshot(self);
    const wal_header *header = &segment->header;
    fprintf(self->out, "segment %llu: %llu bytes, from entry %llu, term %llu",
            (unsigned long long)header->sequence, (unsigned long long)header->capacity,
            (unsigned long long)header->first_index, (unsigned long long)header->hard.term);
    if (header->hard.vote == TRM_WAL_VOTE_NONE)
        fprintf(self->out, ", no vote");
    else
        fprintf(self->out, ", vote for %llu", (unsigned long long)header->hard.vote);
    fprintf(self->out, ", commit %llu\n", (unsigned long long)header->hard.commit);
}

static void show_entries(const dump *self, const wal_record *record)
{
    wal_entries entries;
    wal_entries_init(&entries, record);
    uint64_t first = entries.next_index, bytes = 0;
    trm_wal_entry entry = {0};
    while (wal_entries_next(&entries, &entry))
        bytes += entry.len;
    fprintf(self->out, "entries %llu to %llu, %llu bytes, term %llu\n", (unsigned long long)first,
            (unsigned long long)entry.index, (unsigned long long)bytes, (unsigned long long)entry.term);
    if (!self->entries)
        return;
    wal_entries_init(&entries, record);
    while (wal_entries_next(&entries, &entry))
        fprintf(self->out, "    entry %llu: term %llu, type %u, %zu bytes\n", (unsigned long long)entry.index,
                (unsigned long long)entry.term, entry.type, entry.len);
}

static void show_record(const wal_segment *segment, const wal_record *record, void *context)
{
    dump *self = context;
    if (segment->sequence != self->sequence) {
        show_segment(self, segment);
        self->sequence = segment->sequence;
    }
    fprintf(self->out, "  %8zu  #%u  ", record->at, record->number);
    trm_reader reader;
    trm_reader_init(&reader, record->payload, record->len);
    if (record->type == WAL_ENTRIES) {
        show_entries(self, record);
        return;
    }
    unsigned long long first = trm_get_u64(&reader), second = trm_get_u64(&reader),
                       third = trm_get_u64(&reader);
    if (record->type == WAL_TRUNCATE)
        fprintf(self->out, "void from entry %llu on\n", first);
    else if (record->type == WAL_RESET)
        fprintf(self->out, "all void, goes on behind entry %llu of term %llu\n", first, second);
    else if (second == TRM_WAL_VOTE_NONE)
        fprintf(self->out, "term %llu, no vote, commit %llu\n", first, third);
    else
        fprintf(self->out, "term %llu, vote for %llu, commit %llu\n", first, second, third);
}

static void show_end(const wal_scan *scan, dump *self)
{
    const wal_segment *newest = &scan->segments[scan->segments_len - 1];
    if (newest->sequence != self->sequence)
        show_segment(self, newest);
    fprintf(self->out, "end at offset %zu of segment %llu", scan->end.at,
            (unsigned long long)newest->sequence);
    if (scan->remains.begun || scan->remains.end || scan->short_file)
        fprintf(self->out, ", behind it an unfinished write (left by a crash; the next open drops it)");
    if (scan->sequences_len > scan->segments_len)
        fprintf(self->out,
                "\n%zu segments before it are covered by the snapshot (the next open removes them)",
                scan->sequences_len - scan->segments_len);
    if (scan->aside)
        fprintf(self->out, "\na snapshot half written (the next open removes it)");
    if (scan->reset)
        fprintf(self->out, "\nentries that the snapshot has made void (the next open says so in the log)");
    const wal_state *state = &scan->state;
    fprintf(self->out, "\nlog %016llx: entries %llu to %llu, term %llu, commit %llu\n",
            (unsigned long long)scan->log_id, (unsigned long long)state->base_index + 1,
            (unsigned long long)state->last_index, (unsigned long long)state->hard.term,
            (unsigned long long)state->hard.commit);
}

trm_status trm_wal_dump(trm_fs *fs, const char *dir, bool entries, FILE *out, trm_err *err)
{
    wal_scan scan;
    wal_scan_init(&scan, fs, dir);
    dump self = {.out = out, .entries = entries, .snapshot = &scan.snapshot};
    scan.each = show_record;
    scan.context = &self;
    trm_status status = wal_scan_names(&scan, err);
    if (status == TRM_OK && scan.sequences_len == 0 && scan.snapshots_len == 0)
        status = trm_err_set(err, TRM_ELOST, "there is no log in %s", dir);
    if (status == TRM_OK)
        status = wal_scan_content(&scan, err);
    if (status == TRM_OK) {
        show_end(&scan, &self);
    } else {
        show_snapshot(&self);
        fprintf(out, "damaged: %s\n", err ? err->text : trm_status_name(status));
    }
    wal_scan_close(&scan);
    return status;
}
