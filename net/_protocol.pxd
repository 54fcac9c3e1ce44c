# The types that Cython needs to compile _protocol.py.

cimport cython

from net._codec cimport Codec as TheCodec
from net._landing cimport Landing as TheLanding
from net._runway cimport Row as TheRow, Runway as TheRunway
from net._session cimport Session as TheSession


cdef extern from *:
    """
    /* Eight bytes, the highest first. */
    static unsigned long long number_at(PyObject *beginning, Py_ssize_t at) {
        const unsigned char *from = (const unsigned char *)PyByteArray_AS_STRING(beginning) + at;
        unsigned long long number = 0;
        for (int place = 0; place < 8; place++)
            number = number << 8 | from[place];
        return number;
    }
    """
    unsigned long long number_at(bytearray beginning, Py_ssize_t at)


cdef class Protocol:
    cdef public bytearray _buffer
    cdef public TheCodec _codec
    cdef public tuple _begun
    cdef public TheLanding _landing
    cdef public bint _opened
    cdef public bint _preface_read
    cdef public bint _preface_sent
    cdef public TheRow _row
    cdef public TheRunway _runway
    cdef public object hello
    cdef public object peer
    cdef public TheSession session
    cdef public dict sizes
    cdef public object state

    @cython.locals(session=TheSession, size=Py_ssize_t, number=cython.ulonglong, frames=list)
    cpdef list receive(self, data)
    @cython.locals(runway=TheRunway, row=TheRow, landing=TheLanding)
    cpdef list rooms(self)
    cpdef bint _expects_more(self) except -1
    @cython.locals(frames=list)
    cpdef list landed(self, Py_ssize_t size)
    @cython.locals(runway=TheRunway, row=TheRow, landing=TheLanding, slot=Py_ssize_t, beginning=bytearray, batch=Py_ssize_t, number=cython.ulonglong)
    cpdef object _land(self, Py_ssize_t size, list frames)
    @cython.locals(offset=Py_ssize_t)
    cpdef list _receive(self, data, list frames)
    @cython.locals(moved=Py_ssize_t, size=Py_ssize_t, end=Py_ssize_t, buffer=bytearray)
    cpdef Py_ssize_t _complete(self, view) except -1
    @cython.locals(size=Py_ssize_t, end=Py_ssize_t)
    cpdef Py_ssize_t _take_batches(self, view, Py_ssize_t offset, list frames) except -1
    cpdef object _check_size(self, Py_ssize_t size)
    cpdef object _begin_landing(self, Py_ssize_t size, number, acknowledged, tuple head, begun)
    @cython.locals(landing=TheLanding)
    cpdef object _end_landing(self, list frames)
    @cython.locals(codec=TheCodec, session=TheSession, taken=list)
    cpdef object _take(
        self,
        Py_ssize_t size,
        unsigned long long number,
        unsigned long long acknowledged,
        batch,
        list frames,
    )
    @cython.locals(session=TheSession)
    cpdef object _take_apart(
        self,
        Py_ssize_t size,
        unsigned long long number,
        unsigned long long acknowledged,
        tuple head,
        bytes body,
        list frames,
    )
    cpdef object _step(self, event)
