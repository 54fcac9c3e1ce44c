# The types that Cython needs to compile _protocol.py.

cimport cython

from net._codec cimport Codec as TheCodec
from net._session cimport Session as TheSession


cdef class Protocol:
    cdef public bytearray _buffer
    cdef public TheCodec _codec
    cdef public bint _opened
    cdef public bint _preface_read
    cdef public bint _preface_sent
    cdef public object hello
    cdef public object peer
    cdef public TheSession session
    cdef public dict sizes
    cdef public object state

    @cython.locals(session=TheSession, size=Py_ssize_t, number=cython.ulonglong, frames=list)
    cpdef list receive(self, data)
    @cython.locals(offset=Py_ssize_t, frames=list)
    cpdef list _receive(self, data)
    @cython.locals(moved=Py_ssize_t, size=Py_ssize_t, end=Py_ssize_t, buffer=bytearray)
    cpdef Py_ssize_t _complete(self, view) except -1
    @cython.locals(size=Py_ssize_t, end=Py_ssize_t, taken=list)
    cpdef Py_ssize_t _take_batches(self, data, Py_ssize_t offset, list frames) except -1
    cpdef object _check_size(self, Py_ssize_t size)
    @cython.locals(session=TheSession, frames=list)
    cpdef list _take(self, unsigned long long number, Py_ssize_t size, unsigned long long acknowledged, batch)
    cpdef object _step(self, event)
