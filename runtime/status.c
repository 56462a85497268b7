#include "runtime/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    trm_status status;
    const char *name;
} names[] = {
    {TRM_OK, "TRM_OK"},
    {TRM_AGAIN, "TRM_AGAIN"},
    {TRM_EOF, "TRM_EOF"},
    {TRM_ERECORD, "TRM_ERECORD"},
    {TRM_EKERNEL, "TRM_EKERNEL"},
    {TRM_ECORRUPT, "TRM_ECORRUPT"},
    {TRM_ETIMEOUT, "TRM_ETIMEOUT"},
    {TRM_ELIMIT, "TRM_ELIMIT"},
    {TRM_ELOST, "TRM_ELOST"},
    {TRM_EIO, "TRM_EIO"},
    {TRM_ENOSPACE, "TRM_ENOSPACE"},
    {TRM_ENOMEM, "TRM_ENOMEM"},
    {TRM_EPEER, "TRM_EPEER"},
    {TRM_EINPUT, "TRM_EINPUT"},
    {TRM_EOUTPUT, "TRM_EOUTPUT"},
    {TRM_EJOB, "TRM_EJOB"},
    {TRM_EFAILED, "TRM_EFAILED"},
    {TRM_EUSAGE, "TRM_EUSAGE"},
    {TRM_ELAUNCH, "TRM_ELAUNCH"},
    {TRM_EINTERRUPTED, "TRM_EINTERRUPTED"},
    {TRM_EFENCED, "TRM_EFENCED"},
    {TRM_EVERSION, "TRM_EVERSION"},
};
#define NAMES (sizeof names / sizeof names[0])

const char *trm_status_name(trm_status status)
{
    for (size_t i = 0; i < NAMES; i++)
        if (names[i].status == status)
            return names[i].name;
    return "TRM_?";
}

bool trm_status_valid(uint32_t value)
{
    for (size_t i = 0; i < NAMES; i++)
        if ((uint32_t)names[i].status == value)
            return true;
    return false;
}

trm_status trm_err_set(trm_err *err, trm_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return status;
}

trm_status trm_err_errno(trm_err *err, trm_status status, int error_number, const char *format, ...)
{
    if (status == TRM_EIO && (error_number == ENOSPC || error_number == EDQUOT))
        status = TRM_ENOSPACE;
    if (status == TRM_EIO && error_number == ENOMEM)
        status = TRM_ENOMEM;
    if (!err)
        return status;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s", strerror(error_number));
    return status;
}

void trm_err_wrap(trm_err *err, const char *format, ...)
{
    if (!err)
        return;
    trm_err inner = *err;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s", inner.text);
}
