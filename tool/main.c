#include "tool/commands.h"

int main(int argc, char **argv)
{
    return trm_command_main(argc, argv);
}
