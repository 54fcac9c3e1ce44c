# The types that Cython needs to compile _window.py.


cdef class Window:
    cdef public object _held
    cdef public long _idle
    cdef public object _large
    cdef public long _settled
    cdef public Py_ssize_t bytes
    cdef public long credit
    cdef public bint is_meeting
    cdef public long references
    cdef public long size
    cdef public object starved

    cpdef object count(self, Py_ssize_t size, seqno=*)
    cpdef object give_back(self)
    cpdef object _free(self, long number)
