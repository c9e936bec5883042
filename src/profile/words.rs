//! Words to make synthetic prompts of: common, short and lower-case, so that most vocabularies hold each as one
//! token.

use std::collections::BTreeMap;

/// Common words of English.
const COMMON: &str = "\
able about above accept account across act action active add address after again age ago agree air all allow almost \
alone along already also always among amount and animal another answer any appear apply area arm around arrive art \
ask attack average away baby back bad bag ball bank bar base battle bear beat beauty because become bed before began \
begin behind believe below beside best better between beyond big bird bit black block blood blow blue board boat \
body book born both bottom box boy branch break bring brother brown build building burn business but buy call came \
camp can capital captain car card care carry case cat catch cause cell center central century certain chain chair \
chance change character charge chart check child choice choose church circle city claim class clean clear climb \
clock close clothes cloud coast coat cold collect color column come common company compare complete condition \
connect consider contain continue control cook cool copy corn corner correct cost could count country course cover \
create cross crowd cry current cut dance dark day dead deal dear death decide deep degree design develop die \
differ difficult direct distant divide doctor dog dollar door double down draw dream dress drink drive drop dry \
during each ear early earth east easy eat edge effect egg eight either electric else end enemy energy engine enough \
enter equal even evening event ever every exact example except excite exercise expect experience experiment eye \
face fact fair fall family famous far farm fast fat father favor fear feed feel feet few field fight figure fill \
final find fine finger finish fire first fish fit five flat floor flow flower fly follow food foot force forest \
form forward found four free fresh friend from front fruit full fun game garden gas gather general gentle get girl \
give glad glass gold good govern grand grass gray great green grew ground group grow guess guide gun hair half hand \
happen happy hard hat have head hear heart heat heavy held help here high hill history hit hold hole home hope horse \
hot hour house how huge human hundred hunt hurry ice idea image include indicate industry insect inside instant \
interest iron island job join jump just keep key kill kind king knew know lady lake land language large last late \
laugh law lay lead learn least leave left leg length less letter level lie life lift light like line list listen \
little live locate log lone long look lost lot loud love low machine made main major make man many map mark market \
mass master match material matter may mean measure meat meet melody men metal method middle might mile milk million \
mind mine minute miss mix modern molecule moment money month moon more morning most mother motion mountain mouth \
move much music must name nation natural nature near necessary neck need never new next night nine noise noon north \
nose note nothing notice noun now number object observe ocean off offer office often oil old once one only open \
operate opposite order organ original other our out over own oxygen page paint pair paper part particular party pass \
past path pattern pay people perhaps period person phrase pick picture piece place plain plan plane planet plant \
play please point poor port pose position possible power practice prepare present press pretty print probable \
problem process produce product proper property protect prove provide pull push quart question quick quiet quite \
race radio rail rain raise range rate rather reach read ready real reason receive record red region remember repeat \
reply represent require rest result rich ride right ring rise river road rock roll room root rope rose round row \
rule run safe sail salt same sand save say scale school science score sea search season seat second section see \
seed seem select self sell send sense sentence separate serve set settle seven several shall shape share sharp sheet \
shell shine ship shoe shop short should shoulder shout show side sight sign silent silver similar simple since sing \
single sister six size skill skin sky sleep slip slow small smell smile snow soft soil soldier solution solve some \
son song soon sound south space speak special speech speed spell spend spot spread spring square stand star start \
state station stay stead steam steel step stick still stone stood stop store story straight strange stream street \
stretch string strong student study subject success such sudden sugar suggest suit summer sun supply support sure \
surface surprise swim symbol system table tail take talk tall teach team tell ten term test than thank that their \
then there these thick thin thing think third this those though thought thousand three through throw tie time tiny \
tire together told tone too took tool top total touch toward town track trade train travel tree triangle trip \
trouble truck true try tube turn twenty two type under unit until up use usual valley value vary very view village \
visit voice vowel wait walk wall want war warm wash watch water wave way wear weather week weight well west what \
wheel when where which while white whole whose why wide wife wild will win wind window wing winter wire wish with \
woman wonder wood word work world would write wrong yard year yellow yes yet young";

/// Words that all take the same number of tokens: at the start of a text, and after another word and a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vocabulary {
    /// The words; a power of two of them, at least 2.
    pub words: Vec<&'static str>,
    /// Tokens of each word at the start of a text.
    pub first: usize,
    /// Tokens of each word after another, with the space between.
    pub next: usize,
}

impl Vocabulary {
    /// The words that cost alike with this tokenizer: those of one token each, if there are enough; else the largest
    /// group. Absent if the tokenizer counts no two words alike.
    pub fn choose(count: &dyn Fn(&str) -> usize) -> Option<Self> {
        let alone = count("the");
        let mut groups: BTreeMap<(usize, usize), Vec<&'static str>> = BTreeMap::new();
        for word in COMMON.split_whitespace() {
            let next = count(&format!("the {word}")).saturating_sub(alone);
            if next > 0 {
                groups.entry((count(word), next)).or_default().push(word);
            }
        }
        let single = groups.get(&(1, 1)).is_some_and(|words| words.len() >= 256);
        let ((first, next), mut words) = match single {
            true => groups.remove_entry(&(1, 1))?,
            false => groups.into_iter().max_by_key(|(_, words)| words.len())?,
        };
        words.truncate(1 << words.len().ilog2());
        (words.len() >= 2).then_some(Self { words, first, next })
    }

    /// Bits that the choice of one word carries.
    pub fn bits(&self) -> u32 {
        self.words.len().ilog2()
    }
}
