# The types that Cython needs to compile _session.py. Numbers of batches are unsigned, as on the wire: what a peer
# says always fits.

cimport cython

from net._apart cimport Apart as TheApart
from net._codec cimport Codec as TheCodec


cdef extern from *:
    """
    #include <string.h>

    /* As net._wire.BATCH has the numbers, the highest byte of each first. */
    static PyObject *begin_batch(
        unsigned long size, unsigned long long number, unsigned long long received, PyObject *start
    ) {
        PyObject *made = PyBytes_FromStringAndSize(NULL, 20 + PyBytes_GET_SIZE(start));
        if (made == NULL)
            return NULL;
        unsigned char *to = (unsigned char *)PyBytes_AS_STRING(made);
        int place;
        for (place = 0; place < 4; place++)
            to[place] = (unsigned char)(size >> (24 - 8 * place));
        for (place = 0; place < 8; place++) {
            to[4 + place] = (unsigned char)(number >> (56 - 8 * place));
            to[12 + place] = (unsigned char)(received >> (56 - 8 * place));
        }
        memcpy(to + 20, PyBytes_AS_STRING(start), (size_t)PyBytes_GET_SIZE(start));
        return made;
    }
    """
    bytes begin_batch(unsigned long size, unsigned long long number, unsigned long long received, bytes start)


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
