# The types that Cython needs to compile _codec.py.

cimport cython


cdef class Codec:
    cdef public object _export
    cdef public object _pack
    cdef public object _pack_odd
    cdef public object _resolve
    cdef public long _tags_open
    cdef public object _trouble
    cdef public object _unpacker
    cdef public list exported
    cdef public dict sizes

    @cython.locals(size=Py_ssize_t, data=bytes)
    cpdef bytes encode(self, tuple frame)
    @cython.locals(size=Py_ssize_t, data=bytes)
    cpdef bytes encode_send(self, bytes head, value)
    cpdef bytes _encode_thoroughly(self, tuple frame)
    @cython.locals(start=Py_ssize_t, end=Py_ssize_t, now=Py_ssize_t, size=Py_ssize_t, frames=list)
    cpdef list decode(self, batch)
    cpdef tuple frame_apart(self, tuple head, bytes body)
