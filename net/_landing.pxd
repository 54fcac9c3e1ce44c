# The types that Cython needs to compile _landing.py.

cimport cython


cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif

    /* Of large pages a message of 64 MiB has 32 instead of 16,384: to give the memory back takes microseconds instead of
       milliseconds, in which nobody else would have a turn. */
    #define TASKLETS_LARGE_PAGE ((uintptr_t)2 << 20)

    static PyObject *tasklets_new_bytes(Py_ssize_t size) {
        PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    #ifdef MADV_HUGEPAGE
        if (made != NULL && (uintptr_t)size >= 2 * TASKLETS_LARGE_PAGE) {
            uintptr_t begin = (uintptr_t)PyBytes_AS_STRING(made), end = begin + (uintptr_t)size;
            begin = (begin + TASKLETS_LARGE_PAGE - 1) & ~(TASKLETS_LARGE_PAGE - 1);
            madvise((void *)begin, (end & ~(TASKLETS_LARGE_PAGE - 1)) - begin, MADV_HUGEPAGE);
        }
    #endif
        return made;
    }
    """
    object new_bytes "tasklets_new_bytes" (Py_ssize_t size)


cdef class Landing:
    cdef public object _file
    cdef public object _room
    cdef public Py_ssize_t received
    cdef public Py_ssize_t size

    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t add(self, data) except -1
    cpdef bytes take(self)
