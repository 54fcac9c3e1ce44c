# The types that Cython needs to compile _protocol.py.

cimport cython

from net._codec cimport Codec as TheCodec
from net._landing cimport Landing as TheLanding
from net._session cimport Session as TheSession


cdef class Protocol:
    cdef public bytearray _buffer
    cdef public TheCodec _codec
    cdef public tuple _begun
    cdef public TheLanding _landing
    cdef public bint _opened
    cdef public bint _preface_read
    cdef public bint _preface_sent
    cdef public object hello
    cdef public object peer
    cdef public TheSession session
    cdef public dict sizes
    cdef public object state

    @cython.locals(session=TheSession, size=Py_ssize_t, number=cython.ulonglong, frames=list)
    cpdef list receive(self, data, Py_ssize_t landed=*)
    @cython.locals(offset=Py_ssize_t, frames=list)
    cpdef list _receive(self, data)
    @cython.locals(moved=Py_ssize_t, size=Py_ssize_t, end=Py_ssize_t, buffer=bytearray)
    cpdef Py_ssize_t _complete(self, view) except -1
    @cython.locals(size=Py_ssize_t, end=Py_ssize_t)
    cpdef Py_ssize_t _take_batches(self, view, Py_ssize_t offset, list frames) except -1
    cpdef object _check_size(self, Py_ssize_t size)
    cpdef object _begin_landing(self, Py_ssize_t size, number, acknowledged, begun)
    @cython.locals(landing=TheLanding)
    cpdef object _end_landing(self, list frames)
    @cython.locals(codec=TheCodec, session=TheSession, taken=list)
    cpdef object _take(
        self,
        Py_ssize_t size,
        unsigned long long number,
        unsigned long long acknowledged,
        batch,
        head,
        list frames,
    )
    cpdef object _step(self, event)
