/* Part of every compiled module of the package: of which sources it was made, for tasklets._which_form to find. */
static const char tasklets_form_digest[] __attribute__((used)) = "tasklets-source-digest:" TASKLETS_SOURCE_DIGEST;
