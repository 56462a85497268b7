/* A shared object that is no kernel. */
int kernel_nothing(void);
int kernel_nothing(void)
{
    return 0;
}
