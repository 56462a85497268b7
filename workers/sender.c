#include "workers/sender.h"

trm_writer *trm_sender_begin(trm_sender *self, trm_wire_type type)
{
    trm_wire_header header = {.type = (uint8_t)type, .epoch = self->epoch, .term = self->term};
    trm_wire_begin(&self->frame, &header);
    return &self->frame;
}

trm_status trm_sender_send(trm_sender *self, uint32_t to)
{
    trm_wire_seal(&self->frame);
    if (!trm_writer_ok(&self->frame))
        return TRM_ENOMEM;
    return self->transport->ops->send(self->transport, to, self->frame.data, self->frame.len);
}

void trm_sender_close(trm_sender *self)
{
    trm_writer_close(&self->frame);
}
