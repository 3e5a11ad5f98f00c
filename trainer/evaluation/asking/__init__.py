"""Asking: which prompts with which audio, in which batches, of whom, and how it goes on after a kill.

ask.py       what is asked and what comes back; the contract of who answers (Asker)
planning.py  asks of all rows, and their batches
audio.py     what is heard
student.py   a trained student, or one without coat
server.py    an OpenAI-compatible server: its client is chat.py, and streaming.py where it is timed
others.py    predictions that someone else made
loop.py      the loop over batches, with its files
"""
