# The types that Cython needs to compile _session.py. Numbers of batches are unsigned, as on the wire: what a peer
# says always fits.

cimport cython

from net._apart cimport Apart as TheApart
from net._codec cimport Codec as TheCodec


cpdef Py_ssize_t size_of(batch) except -1


cdef class Session:
    cdef public TheCodec _codec
    cdef public object _replay
    cdef public unsigned long long acknowledged
    cdef public Py_ssize_t owed_bytes
    cdef public object peer_limits
    cdef public unsigned long long received
    cdef public Py_ssize_t replay_bytes
    cdef public unsigned long long sent
    cdef public bytes session_id

    @cython.locals(size=Py_ssize_t, data=bytes)
    cpdef bytes envelope(self, packed)
    @cython.locals(size=Py_ssize_t)
    cpdef tuple envelope_apart(self, TheApart apart)
    cpdef bytes acknowledgement(self)
    cpdef object take(self, unsigned long long number, Py_ssize_t size, unsigned long long acknowledged)
    cpdef object acknowledge(self, unsigned long long number)
