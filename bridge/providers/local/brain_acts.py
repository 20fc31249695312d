"""What a short utterance does in a conversation: yes, no, "say that again", "never mind", goodbye.

By words, not by meaning: these must be certain and cost nothing. A phrase list beats an embedding on "no thanks".
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from bridge.providers.local.text_words import CACHED_TEXTS, plain


def _phrases(listed: str) -> str:
    """Alternatives of a regex, the longest first, from a list separated by | (line breaks are spaces)."""
    phrases = [" ".join(phrase.split()) for phrase in listed.split("|")]
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))


_FILLER = _phrases(
    """
    uh|um|er|erm|hm|hmm|mm|ah|oh|well|so|and|please|like|you know|then|actually|i think|i guess|just|now|there
    |sir|madam|maam|mate|my friend|dear|thanks|thank you|thank you very much|thanks a lot|thank you so much
    |many thanks|very much
    """
)
_YES = _phrases(
    """
    yes|yeah|yea|yep|yup|yas|yess|yah|ya|ye|yeh|aye|sure|sure thing|certainly|correct|right|exactly|absolutely
    |definitely|of course|ok|okay|o k|alright|all right|fine|good|great|perfect|lovely|wonderful|excellent
    |sounds good|sounds great|sounds right|thats right|that is right|thats correct|that is correct|thats fine
    |thats it|thats good|thats great|thats perfect|thats all right|thats okay|that works|that would be great
    |that would be good|that would be nice|it is|it does|i do|i would|i will|id like that|id love to
    |id love that|please do|do it|do so|go ahead|uh huh|uhhuh|mhm|mm hm|mm hmm|you got it|i confirm|confirmed
    |looks good|works for me|you can|you may|lets do it|lets do that|book it|why not|indeed|affirmative|true
    |everything is right|everything is correct|all good|all correct|its right|its correct|its fine
    |you have it right|you got that right|yes it is|yes you can
    """
)
_NO = _phrases(
    """
    no|no sorry|sorry no
    |nope|nah|naw|no no|no way|not really|no it isnt|no it is not|it isnt|it is not|thats not right
    |thats wrong|that is wrong|that is not right|thats incorrect|not correct|not right|not quite|wrong|incorrect
    |no its not|its not|i dont|i dont think so|i do not|not exactly|not at all|negative|its wrong
    |thats not correct|no thats not it|no thats wrong|id rather not|rather not|better not|not necessary|no need
    |not today|not now|no longer|i wouldnt
    """
)
_DONE = _phrases(
    """
    thats all|that is all|thats it|that is it|that will be all|thatll be all|that would be all|thats everything
    |that is everything|thats all i need|thats all i needed|thats all i wanted|thats all i wanted to know
    |that was all|that was it|nothing else|nothing more|nothing|im done|i am done|were done|im good|i am good
    |im fine|all set|im all set|were all set|were good|thats all for now|thats all for today|no more questions
    |that helps|that answers my question|i have everything
    """
)
_BYE = _phrases(
    """
    bye|bye bye|goodbye|good bye|see you|see you then|see you soon|see you later|see you on friday
    |see you tomorrow|have a good day|have a nice day|have a great day|have a good one|have a good night
    |have a good evening|have a nice evening|have a nice night|good night|take care|talk to you later|cheers
    |ciao|i have to go|i have to go now|ive got to go|i need to go|i will hang up|im hanging up
    |youve been very helpful|you too|same to you
    """
)
_THANKS = _phrases(
    """
    thanks|thank you|thank you very much|thanks a lot|thank you so much|many thanks|much appreciated
    |i appreciate it|i appreciate that|thats very kind|thats kind|very kind|great|perfect|lovely|wonderful
    |excellent|good to know|very good|awesome|cool|nice|super|brilliant|fantastic|good|ok|okay|alright|all right
    |fine|thats good to know|thats very helpful|thats helpful|for your help|for the information|for that
    """
)
_OKAY = _phrases(
    """
    ok|okay|alright|all right|right|i see|got it|understood|mm|mhm|mm hm|uh huh|hm|great|perfect|good|fine
    |good to know|thats good|i understand|cool|nice|lovely|aha|ah|oh|interesting|wonderful|excellent|gotcha
    |thats good to know|thats great
    """
)
_REPEAT = _phrases(
    """
    sorry|pardon|pardon me|excuse me|what|what was that|huh|come again|say again|again|repeat|repeat that
    |once more|one more time|say that again|can you say that again|could you say that again|can you repeat that
    |could you repeat that|repeat please|can you repeat|could you repeat|would you repeat that|what did you say
    |what did you just say|say it again|can you say it again|could you say it again|i didnt catch that
    |i didnt get that|i did not get that|i did not catch that|didnt catch that|i didnt hear you
    |i didnt hear that|i cant hear you|i cannot hear you|i couldnt hear you|i didnt understand
    |i didnt understand that|i dont understand|i did not understand|could you speak up|can you speak up|speak up
    |speak louder|could you speak louder|slower|can you speak slower|could you speak more slowly|more slowly
    |say what|i missed that|what was the question|whats the question|can you repeat the question
    |could you repeat the question|i beg your pardon|im sorry|i am sorry|what do you mean|sorry what
    |repeat that for me|can you repeat it|could you repeat it
    """
)
_CANCEL = _phrases(
    """
    never mind|nevermind|forget it|forget about it|forget that|cancel|cancel it|cancel that|cancel this|stop
    |stop it|stop that|leave it|drop it|lets leave it|lets forget it|i changed my mind|ive changed my mind
    |i have changed my mind|i dont want it anymore|i dont want that anymore|i dont want to book
    |i dont want to book anymore|dont book|dont book it|dont book anything|i dont want a table|no booking
    |scrap that|abort|quit|not anymore|lets not|lets stop|i dont want to leave a message|no message|dont bother
    |id rather call back|ill call back|ill call back later|ill call again|i will call back
    |i will call back later|start over|i want to cancel|i want to stop|i would like to cancel|id like to cancel
    """
)
_WAIT = _phrases(
    """
    wait|wait a second|wait a moment|wait a minute|hold on|hold on a second|hold on a moment|hang on
    |hang on a second|one moment|one second|just a moment|just a second|just a minute|one minute|a moment
    |a second|give me a second|give me a moment|give me a minute|let me think|let me see|let me check
    |let me look|im thinking|bear with me|hold the line|sec|one sec|just a sec|hang on a sec|hold on a sec
    |let me have a look|i have to check|i need to check|let me ask my wife
    """
)
_HELLO = _phrases(
    """
    hello|hi|hey|hi there|hello there|hey there|good morning|good afternoon|good evening|good day|howdy
    |greetings|hallo|hello hello|anybody there|is anybody there|is anyone there|are you there
    |are you still there|is someone there
    """
)


def _only(listed: str, also: str = "") -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns for a text that is made of such phrases, `also` and fillers alone, and has one of the phrases in it.

    Atomic and possessive, as "no no no no ..." must not make it try all ways to cut the text."""
    part = rf"(?>(?:{listed}|{also + '|' if also else ''}{_FILLER})(?= |\Z))"
    return re.compile(rf"{part}(?: {part})*+\Z"), re.compile(rf"(?:\A| )(?:{listed})(?= |\Z)")


_IS = {
    "yes": _only(_YES),
    "no": _only(_NO),
    "done": _only(_DONE, f"{_NO}|{_OKAY}|{_YES}"),
    "bye": _only(_BYE, f"{_DONE}|{_OKAY}|{_YES}|{_NO}"),
    "okay": _only(_OKAY),
    "repeat": _only(_REPEAT, f"{_OKAY}|{_YES}|{_NO}"),
    "cancel": _only(_CANCEL, f"{_OKAY}|{_NO}|sorry"),
    "wait": _only(_WAIT, f"{_OKAY}|sorry|{_NO}"),
    "hello": _only(_HELLO, _YES),
    "thanks": _only(_THANKS, _YES),
}
_THANKING = re.compile(r"\b(?:thanks|thank you|appreciate)")
_LEADING_FILLER = re.compile(rf"\A(?>(?:{_FILLER}|sorry) )++")
_LEADING_NO = re.compile(rf"\A(?>(?:{_FILLER}|sorry) )*+(?:{_NO})(?: |\Z)")
_LEADING_YES = re.compile(rf"\A(?>(?:{_FILLER}) )*+(?:yes|yeah|yea|yep|yup|sure|correct|ok|okay|right)(?: |\Z)")
_ENDS_BYE = re.compile(r"(?:\A| )(?:bye|goodbye|good bye|bye bye)(?: now| then)?\Z")
_TRAILING_CANCEL = re.compile(
    r"(?:\A| )(?:never mind|forget it|forget about it|i changed my mind|ive changed my mind)\Z"
)
_WRONG_NUMBER = re.compile(
    r"(?:\A| )(?:wrong number|misdialed|misdialled|dialed wrong|dialled wrong|wrong person)(?: |\Z)"
)
_OPENERS = (
    "and|but|so|oh|wait|um|uh|okay|ok|well|actually|sorry|by the way|before that|one question|first|also|hi|hello"
)
_QUESTION = re.compile(
    rf"\A(?>(?:{_OPENERS}) )*+(?:what|whats|where|wheres|when|whens|who|whos|why|how|hows|which|do you|do they|does"
    r"|is there|are there|is it|is the|is your|are you|are the|are dogs|are kids|are children|can i|can we|can you"
    r"|can my|could i|could we|could you|may i|may we|will there|will you"
    r"|would it|have you|has|did you"
    r"|i wanted to ask|i want to know|i was wondering|tell me|can you tell|could you tell|any|am i)\b"
)


@dataclass(frozen=True, slots=True)
class Acts:
    """What the words of one utterance may be; what they are depends on what was asked."""

    plain: str
    """The normalised words."""
    yes: bool
    no: bool
    leading_yes: bool
    """It begins with a yes: "yes, but make it eight"."""
    leading_no: bool
    done: bool
    bye: bool
    thanks: bool
    okay: bool
    repeat: bool
    cancel: bool
    wait: bool
    hello: bool
    wrong_number: bool
    question: bool
    """It reads like a question."""

    @property
    def any(self) -> bool:
        """True when words alone say what it is, and meaning need not be looked up."""
        return any(
            (
                self.yes,
                self.no,
                self.done,
                self.bye,
                self.thanks,
                self.okay,
                self.repeat,
                self.cancel,
                self.wait,
                self.hello,
            )
        )


@lru_cache(maxsize=CACHED_TEXTS)
def acts(text: str) -> Acts:
    """What `text` does."""
    words = plain(text)

    def does(act: str) -> bool:
        made_of, contains = _IS[act]
        return bool(words) and bool(made_of.match(words)) and bool(contains.search(words))

    cancel = does("cancel") or bool(_TRAILING_CANCEL.search(words))
    bye = does("bye") or bool(_ENDS_BYE.search(words))
    repeat = does("repeat")
    return Acts(
        words,
        yes=does("yes"),
        no=does("no"),
        leading_yes=bool(_LEADING_YES.match(words)),
        leading_no=bool(_LEADING_NO.match(words)),
        done=does("done"),
        bye=bye,
        thanks=does("thanks") and bool(_THANKING.search(words)),
        okay=does("okay"),
        repeat=repeat,
        cancel=cancel,
        wait=does("wait"),
        hello=does("hello"),
        wrong_number=bool(_WRONG_NUMBER.search(words)),
        question=bool(_QUESTION.match(words)) or text.rstrip().endswith("?"),
    )


def without_answer(text_plain: str) -> str:
    """Normalised words without a leading yes or no and fillers."""
    for pattern in (_LEADING_NO, _LEADING_YES, _LEADING_FILLER):
        text_plain = pattern.sub("", text_plain, count=1)
    return text_plain
