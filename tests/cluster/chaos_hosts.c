/* Hosts made of network namespaces, by a script. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos.h"

#include <unistd.h>

static bool script(const chaos_world *world, const char *what, unsigned host)
{
    return chaos_shell(world, "'%s/tests/cluster/chaos_hosts.sh' %s %s '%s' %u", world->source, what,
                       world->id, world->dir, host);
}

bool chaos_hosts_make(chaos_world *world)
{
    world->hosts_why = geteuid() != 0              ? "hosts are network namespaces, which needs root"
                       : !script(world, "make", 0) ? "this machine makes no network namespaces"
                                                   : NULL;
    world->has_hosts = !world->hosts_why;
    return world->has_hosts;
}

void chaos_hosts_remove(chaos_world *world)
{
    if (world->has_hosts)
        script(world, "remove", 0);
    world->has_hosts = false;
}

bool chaos_hosts_link(const chaos_world *world, unsigned host, bool up)
{
    return script(world, up ? "heal" : "cut", host);
}
