/* Part of every compiled module of the package: of which source it was made, for tasklets._which_form to find. */
static const char tasklets_source_digest[] __attribute__((used)) = "tasklets-source-digest:" TASKLETS_SOURCE_DIGEST;
