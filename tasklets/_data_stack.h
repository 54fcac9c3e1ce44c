/* Small data stacks for tasklets, and chunks that are kept for the next one.

   Since 3.11 CPython puts the frames of Python functions on a "data stack", a list of chunks of 16 KiB that it maps when
   they are needed and unmaps when they are not. greenlet gives each greenlet a data stack of its own. That is most of what
   a blocked tasklet occupies (a page of 4 KiB is touched), and most of what it costs to start a greenlet (7 us of 8).

   So a worker begins with a chunk of ROOT_BYTES from the heap, room for three or four usual frames. The price would be that
   a loop that calls a function just beyond the end of that chunk maps and unmaps the next one at each call. So chunks that
   are given back are kept, KEPT of them at most, for whoever wants one next.

   Both work through the interpreter's allocator of arenas, by which it gets and returns its chunks, and by which greenlet
   returns those of a dead greenlet: that is a public interface, and serves the whole process. Sizes tell what is what: an
   arena has 256 KiB or more. */

#include <Python.h>

#if !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000

#define CHUNK_BYTES (16 * 1024) /* DATA_STACK_CHUNK_SIZE in CPython's pystate.c */
#define ROOT_BYTES 672
#define KEPT 64 /* 1 MiB */

static PyObjectArenaAllocator tasklets_arenas; /* the allocator that was there before */
static void *tasklets_kept[KEPT];
static int tasklets_kept_count = 0;
/* Interpreters that do not share a GIL share the allocator. Whoever finds the door closed goes around. */
static char tasklets_door = 0;

static void *tasklets_arena_alloc(void *context, size_t size) {
    void *found = NULL;
    if (size == CHUNK_BYTES && !__atomic_test_and_set(&tasklets_door, __ATOMIC_ACQUIRE)) {
        if (tasklets_kept_count > 0) found = tasklets_kept[--tasklets_kept_count];
        __atomic_clear(&tasklets_door, __ATOMIC_RELEASE);
    }
    return found != NULL ? found : tasklets_arenas.alloc(tasklets_arenas.ctx, size);
}

static void tasklets_arena_free(void *context, void *chunk, size_t size) {
    if (size == ROOT_BYTES) {
        PyMem_RawFree(chunk);
        return;
    }
    if (size == CHUNK_BYTES && !__atomic_test_and_set(&tasklets_door, __ATOMIC_ACQUIRE)) {
        int is_kept = tasklets_kept_count < KEPT;
        if (is_kept) tasklets_kept[tasklets_kept_count++] = chunk;
        __atomic_clear(&tasklets_door, __ATOMIC_RELEASE);
        if (is_kept) return;
    }
    tasklets_arenas.free(tasklets_arenas.ctx, chunk, size);
}

static void tasklets_keep_chunks(void) {
    PyObjectArenaAllocator ours = {NULL, tasklets_arena_alloc, tasklets_arena_free};
    PyObject_GetArenaAllocator(&tasklets_arenas);
    if (tasklets_arenas.alloc != tasklets_arena_alloc) PyObject_SetArenaAllocator(&ours);
}

/* Called in a greenlet that has no data stack yet. */
static void tasklets_begin_small(void) {
    PyThreadState *thread = PyThreadState_Get();
    if (thread->datastack_chunk == NULL) {
        _PyStackChunk *root = (_PyStackChunk *)PyMem_RawMalloc(ROOT_BYTES);
        if (root == NULL) return; /* the interpreter will map one */
        root->previous = NULL;
        root->size = ROOT_BYTES;
        root->top = 0;
        thread->datastack_chunk = root;
        thread->datastack_top = &root->data[1]; /* a frame at the very beginning would return the chunk when it ends */
        thread->datastack_limit = (PyObject **)((char *)root + ROOT_BYTES);
    }
}

#else /* another implementation of Python, or a version that nobody has looked at: leave everything as it is */

static void tasklets_keep_chunks(void) {}
static void tasklets_begin_small(void) {}

#endif

/* When many tasklets have ended. glibc gives memory back from the end of its heap only, and one small block there, whose
   ever, keeps all the memory of a hundred thousand tasklets (280 MB) for a process that does not need it any more. */
#if defined(__GLIBC__)
#include <malloc.h>
static void tasklets_give_back(void) { malloc_trim(0); }
#else
static void tasklets_give_back(void) {}
#endif
