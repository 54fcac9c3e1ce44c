# The types that Cython needs to compile _apart.py. Attributes are `public` because Python code uses them, too.

cimport cython


cdef class Apart:
    cdef public object body
    cdef public bytes head
    cdef public Py_ssize_t size


@cython.locals(start=bytes, kind=cython.int, mark=cython.int, at=Py_ssize_t)
cpdef tuple read_head(data)
cpdef tuple head_of(data, Py_ssize_t size)
