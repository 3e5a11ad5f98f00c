"""The whole job in one file: a recipe is read, made into stages, and run.

`reading` parses the file; `building` makes stages of it, one command of coat each; `artefacts` says what a stage reads
and makes, by digest; `notes` remembers what was done with what; `running` runs what is not done; `page` links what came
out. A stage is a process of its own: nothing here knows what a command does.
"""
