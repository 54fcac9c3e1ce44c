# The types that Cython needs to compile _landing.py.

cimport cython


cdef extern from "Python.h":
    object PyBytes_FromStringAndSize(char *content, Py_ssize_t size)


cdef inline object new_bytes(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)


cdef class Landing:
    cdef public object _file
    cdef public object _room
    cdef public Py_ssize_t received
    cdef public Py_ssize_t size

    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t add(self, data) except -1
    cpdef bytes take(self)
