# The types that Cython needs to compile _runway.py.

cimport cython

from net._landing cimport Landing as TheLanding


cdef extern from *:
    """
    #include <string.h>

    /* Without the numbers, which are bytes 4 to 20 of a batch (net._wire.BATCH). */
    static int alike(PyObject *one, PyObject *other) {
        const char *a = PyByteArray_Check(one) ? PyByteArray_AS_STRING(one) : PyBytes_AS_STRING(one);
        const char *b = PyBytes_AS_STRING(other);
        Py_ssize_t size = Py_SIZE(other);
        return Py_SIZE(one) == size && memcmp(a, b, 4) == 0 && memcmp(a + 20, b + 20, size - 20) == 0;
    }
    """
    bint alike(object one, bytes other)


cdef class Row:
    cdef public long _needed
    cdef public unsigned long long _number
    cdef public bytes beginning
    cdef public long count
    cdef public tuple head

    cpdef object add(self, unsigned long long number, bytes beginning, tuple head)
    cpdef bint fits(self, beginning) except -1
    cpdef object grow(self, unsigned long long number)
    cpdef object end(self)


cdef class Runway:
    cdef public list _landings
    cdef public Py_ssize_t _start
    cdef public list beginnings
    cdef public list buffers
    cdef public Py_ssize_t length
    cdef public object received

    @cython.locals(slots=Py_ssize_t)
    cpdef object lay(self, Py_ssize_t start, Py_ssize_t length)
    @cython.locals(landing=TheLanding, fresh=TheLanding)
    cpdef TheLanding take(self, Py_ssize_t slot)
    cpdef object contents(self, Py_ssize_t slot, Py_ssize_t size)
